"""Which images an output already holds: the keys of the snapshot and of unfolded parts, and which row wins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.dataset import schema, snapshot
from cvjobs.dataset.parts import File, Part
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.storage.store import Store, in_flight

RACY = 2_000_000_000
BLOCK = 1 << 18  # ids that are looked up at once

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class Want:
    """The images the output must account for, one row each: ``image_id`` and the version that counts.

    ``table`` has the key columns (and a list's own); ``accepted`` (uint64) is the version a known row must have:
    the listed one, or an older one whose content was found to be the same.
    """

    table: pa.Table
    accepted: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.accepted)

    @property
    def ids(self) -> pa.Array:
        """The image ids as one Arrow array; without a copy where they are one."""
        ids = self.table["image_id"]
        return ids.chunk(0) if ids.num_chunks == 1 else ids.combine_chunks()

    @property
    def versions(self) -> npt.NDArray[np.uint64]:
        """The listed versions."""
        return np.asarray(self.table["version"].to_numpy(), np.uint64)

    def digest(self) -> str:
        """Return a digest of ids and versions that does not depend on their order."""
        if not len(self):
            return "0" * 16
        halves = _halves(self.ids)
        with np.errstate(over="ignore"):
            mixed = (halves[:, 0] ^ (self.versions * np.uint64(0x9E3779B97F4A7C15))) * (halves[:, 1] | np.uint64(1))
            return f"{int(mixed.sum(dtype=np.uint64)):016x}"


@dataclass(frozen=True, kw_only=True)
class Known:
    """The keys of every row that the output's files hold, newest file last.

    Arrays run over all rows of ``files`` in order: ``ids``, ``versions`` (uint64), ``file`` (which of ``files``),
    ``failed`` (an error row), ``retryable``, ``recent`` (its time stamp was too fresh to trust).
    ``damaged`` are files of the snapshot that are gone or no longer readable: their images are computed again.
    """

    files: tuple[File, ...]
    ids: pa.Array
    versions: npt.NDArray[np.uint64]
    file: Ints
    failed: Mask
    retryable: Mask
    recent: Mask
    damaged: tuple[str, ...]


def load(store: Store, base: Snapshot, parts: list[Part]) -> Known:
    """Read the keys (never the results) of a snapshot and of the parts that it has not folded yet."""
    recent = pa.array([bytes.fromhex(i) for i in base.recent], schema.ID)
    entries: list[tuple[File, bool, int | None]] = [
        *((f, False, None) for f in base.results),
        *((f, True, None) for f in base.errors),
    ]
    for part in parts:
        entries += [(f, f is part.errors, part.listed) for f in (part.results, part.errors) if f]
    files, ids, versions, failed, retryable, racy, damaged = [], [], [], [], [], [], []

    def keys(entry: tuple[File, bool, int | None]) -> pa.Table | None:
        file, is_error, _ = entry
        columns = ["image_id", "modified", "version", *(["retryable"] if is_error else [])]
        try:
            table = snapshot.read_table(store, file, columns)
            return table if table.num_columns == len(columns) else None  # else it is no file of errors
        except snapshot.DamagedOutput:
            return None

    for (file, is_error, listed), table in zip(entries, in_flight(store, keys, entries), strict=True):
        if table is None:
            damaged.append(file.name)
            continue
        files.append(replace(file, rows=table.num_rows))  # as it is, whatever the snapshot says
        key = table["image_id"].combine_chunks()
        ids.append(key)
        versions.append(table["version"].to_numpy())
        failed.append(np.full(len(key), is_error))
        again = table["retryable"].to_numpy() if is_error else np.zeros(len(key))
        retryable.append(again.astype(bool))
        if listed is None:
            racy.append(pc.is_in(key, value_set=recent).to_numpy(zero_copy_only=False))
        else:
            fresh = pc.greater_equal(table["modified"].cast(pa.int64()), listed - RACY)
            racy.append(fresh.fill_null(False).to_numpy().astype(bool))
    return Known(
        files=tuple(files),
        ids=pa.concat_arrays(ids) if ids else pa.array([], schema.ID),
        versions=_join(versions, np.uint64),
        file=np.repeat(np.arange(len(ids)), [len(i) for i in ids]),
        failed=_join(failed, np.bool_),
        retryable=_join(retryable, np.bool_),
        recent=_join(racy, np.bool_),
        damaged=tuple(damaged),
    )


def _join(pieces: list[npt.NDArray[T]], dtype: type[T]) -> npt.NDArray[T]:
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype)


def positions(ids: pa.Array, among: pa.Array) -> Ints:
    """Return for each id its index in ``among``, of several the first, and -1 where it is not there.

    Halves of ids are sorted and searched: a hash table of Arrow takes 160 bytes for each image.
    """
    found = np.full(len(ids), -1)
    if not len(ids) or not len(among):
        return found
    wanted, there = _halves(ids), _halves(among)
    order = np.argsort(there[:, 0], kind="stable")
    ordered = there[order, 0]
    for start in range(0, len(ids), BLOCK):
        block = wanted[start : start + BLOCK]
        left = np.argsort(block[:, 0], kind="stable")  # near ones are looked for one after another
        at = np.searchsorted(ordered, block[left, 0])
        while len(left):
            more = at < len(ordered)
            left, at = left[more], at[more]
            same = ordered[at] == block[left, 0]
            left, at = left[same], at[same]
            met = there[order[at], 1] == block[left, 1]
            found[start + left[met]] = order[at[met]]
            left, at = left[~met], at[~met] + 1
    return found


def distinct(ids: pa.Array) -> pa.Array:
    """Return the ids without repetition, sorted; ``pc.unique`` would take 100 bytes for each."""
    if not len(ids):
        return ids
    halves = _halves(ids)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    new = np.ones(len(ids), np.bool_)
    new[1:] = halves[order[1:], 0] != halves[order[:-1], 0]
    new[1:] |= halves[order[1:], 1] != halves[order[:-1], 1]
    return ids.take(pa.array(order[new]))


def _halves(ids: pa.Array) -> npt.NDArray[np.uint64]:
    """Return n ids of 16 bytes as (n, 2) numbers."""
    numbers = np.frombuffer(ids.buffers()[1], dtype=np.uint64, offset=16 * ids.offset)
    return numbers[: 2 * len(ids)].reshape(-1, 2)


def rows_at(table: pa.Table, at: Ints) -> pa.Table:
    """Return the rows of a table at some places, in their order; the table itself where these are all its rows.

    ``Table.take`` joins a column's chunks first, and refuses where their texts take 2 GiB, as 50 million paths may.
    """
    if len(at) == table.num_rows and np.array_equal(at, np.arange(len(at))):
        return table
    if not len(at):
        return table.slice(0, 0)
    batches = table.to_batches()
    starts = np.cumsum([0, *(len(batch) for batch in batches)])
    which = np.searchsorted(starts, at, side="right") - 1
    order = np.argsort(which, kind="stable")
    groups, first = np.unique(which[order], return_index=True)
    pieces = [
        batches[group].take(pa.array(at[rows] - starts[group]))
        for group, rows in zip(groups, np.split(order, first[1:]), strict=True)
    ]
    found = pa.Table.from_batches(pieces, schema=table.schema)
    if np.all(which[1:] >= which[:-1]):
        return found
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return found.take(pa.array(back))


def choose(known: Known, want: Want, void: pa.Array | None = None) -> Ints:
    """Return for each wanted image the row of ``known`` that stands for it, -1 where none does.

    Only rows of the accepted version count; among them a result beats an error, then the newest wins. Ids in
    ``void`` have results that were found to be of an older content: only the newest row of each counts.
    """
    where = positions(known.ids, want.ids)
    counts = where >= 0
    counts[counts] = known.versions[counts] == want.accepted[where[counts]]
    rows = np.flatnonzero(counts)
    chosen = np.full(len(want), -1, np.int64)
    if len(rows) == 0:
        return chosen
    if np.bincount(where[rows]).max() == 1:
        chosen[where[rows]] = rows
        return chosen
    rank = (~known.failed[rows]).astype(np.int64)
    if void is not None and len(void):
        rank[positions(known.ids, void)[rows] >= 0] = 0
    order = np.lexsort((rows, rank, where[rows]))  # the last row of each image is the best
    chosen[where[rows[order]]] = rows[order]
    return chosen
