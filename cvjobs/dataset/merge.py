"""The merge: from a snapshot and unfolded parts to a new snapshot with exactly one row per wanted image.

Deterministic given its inputs, without inference, and safe to be killed anywhere: nothing is deleted before the
new snapshot is published.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.common.errors import OutputHeld
from cvjobs.dataset import run_files, snapshot, versions
from cvjobs.dataset import schema as dataset_schema
from cvjobs.dataset.keys import RACY, Ints, Known, Mask, Want, choose, positions, rows_at
from cvjobs.dataset.parts import File, Part, committed, write_table
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.storage.local_store import TEMPORARY
from cvjobs.storage.store import Store, in_flight

SMALL = 16 << 20
FULL = 128 << 20
AHEAD = 8  # small files that are read at once from an object store


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a merge is given beside the files: the wanted images and what the new snapshot says of itself.

    ``schema`` is that of the results; ``draft`` carries the run, epoch, fingerprint, source and skip counts;
    ``lock`` is the run's lock epoch and ``listed`` when it began to list (ns); ``void`` as in ``keys.choose``;
    ``settled`` are ids (16 bytes) whose content was compared after their time stamps were old enough to trust;
    ``abandoned`` are parts of another fingerprint or overwrite epoch; ``merge`` joins small files.
    """

    want: Want
    schema: pa.Schema
    draft: Snapshot
    lock: int
    listed: int
    void: pa.Array
    settled: pa.Array
    abandoned: tuple[Part, ...]
    merge: bool


def merge(store: Store, base: Snapshot, parts: list[Part], known: Known, change: Change) -> Snapshot:
    """Publish the next snapshot and clean up after it; returns ``base`` where nothing changed.

    Raises OutputHeld where another run published first: this run's parts are kept and folded by the next one.
    """
    number = versions.following(store)
    if snapshot.readable(store) != base.version:
        raise _held(store)
    # Left by a kill. The next snapshot will not name them, and must not take them for new rows.
    left = {name.removesuffix(".json") for name in store.names(dataset_schema.PARTS)} & set(base.folded)
    store.delete(*(f"{dataset_schema.PARTS}/{name}.json" for name in left))
    chosen = choose(known, change.want, change.void)
    keep = np.zeros(len(known.ids), np.bool_)
    keep[chosen[chosen >= 0]] = True
    patched = _patched(known, change.want, chosen)
    result_files, error_files = _split(known, base, parts)
    rows = _Rows(store, known, change.want, keep, patched)
    results = _files(rows, result_files, change, dataset_schema.DATA, change.schema)
    errors = _files(rows, error_files, change, dataset_schema.ERRORS, dataset_schema.ERROR_SCHEMA)
    new = replace(
        change.draft,
        version=number,
        want=change.want.digest(),
        wanted=len(change.want),
        results=tuple(results),
        errors=tuple(errors),
        recent=_recent(known, chosen, change),
        folded=tuple(sorted(part.name for part in parts)),
        created=snapshot.now(),
    )
    if not parts and _same(base, new) and run_files.there(store, base.run):
        _clean(store, base, list(change.abandoned), base)
        sweep(store, change.draft.run, change.lock)
        return base
    if not snapshot.publish(store, new):
        raise _held(store)
    _clean(store, base, [*parts, *change.abandoned], new)
    sweep(store, new.run, change.lock)
    return new


def _held(store: Store) -> OutputHeld:
    return OutputHeld(f"Another run published {store.place} first: nothing is lost, run the same command again.")


def _same(base: Snapshot, new: Snapshot) -> bool:
    """Return whether a merge changed nothing that a reader could see."""
    fields = ("epoch", "fingerprint", "source", "want", "wanted", "skipped", "results", "errors", "recent")
    return base.version > 0 and all(getattr(base, f) == getattr(new, f) for f in fields)


def _recent(known: Known, chosen: Ints, change: Change) -> tuple[str, ...]:
    """Return the ids (hex) of kept rows whose time stamps are too fresh to trust."""
    rows = chosen[chosen >= 0]
    rows = rows[known.recent[rows]]
    ids = known.ids.take(pa.array(rows))
    found = {i.hex() for i in ids.filter(pc.invert(pc.is_in(ids, value_set=change.settled))).to_pylist()}
    touched = np.flatnonzero(change.want.accepted != change.want.versions)
    if len(touched):
        stamps = change.want.table["modified"].cast(pa.int64()).to_numpy()
        fresh = touched[stamps[touched] >= change.listed - RACY]
        found |= {i.hex() for i in change.want.ids.take(pa.array(fresh)).to_pylist()}
    return tuple(sorted(found))


def _split(known: Known, base: Snapshot, parts: list[Part]) -> tuple[list[int], list[int]]:
    """Return the indices of the result files and of the error files."""
    error_names = {f.name for f in base.errors} | {p.errors.name for p in parts if p.errors}
    indices = range(len(known.files))
    return (
        [i for i in indices if known.files[i].name not in error_names],
        [i for i in indices if known.files[i].name in error_names],
    )


def _patched(known: Known, want: Want, chosen: Ints) -> set[int]:
    """Return the files that keep a row under an older version than the listed one."""
    rows = chosen[(want.accepted != want.versions) & (chosen >= 0)]
    return set(np.unique(known.file[rows]).tolist())


@dataclass(frozen=True)
class _Rows:
    """The known rows, which of them stay, and the files in which some are kept under an older version."""

    store: Store
    known: Known
    want: Want
    keep: Mask
    patched: set[int]


def _files(rows: _Rows, indices: list[int], change: Change, folder: str, schema: pa.Schema) -> list[File]:
    """Return the files of the new snapshot: whole files as they are, the rest rewritten without the losers."""
    known = rows.known
    kept = np.bincount(known.file[rows.keep], minlength=len(known.files))
    alive = [i for i in indices if kept[i] > 0]
    rewrite = {i for i in alive if kept[i] < known.files[i].rows or i in rows.patched}
    if change.merge:
        small = {i for i in alive if known.files[i].bytes < SMALL}
        if len(small | rewrite) > 1:
            rewrite |= small
    files = [known.files[i] for i in alive if i not in rewrite]
    pieces = _surviving(rows, sorted(rewrite), schema)
    while (piece := next(pieces, None)) is not None:
        name = f"{folder}/part-{change.draft.run}-{secrets.token_hex(8)}.parquet"
        files.append(write_table(rows.store, name, schema, _up_to(FULL, piece, pieces)))
    return files


def _up_to(limit: int, first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield tables until they hold ``limit`` bytes."""
    size = first.nbytes
    yield first
    while size < limit and (table := next(rest, None)) is not None:
        size += table.nbytes
        yield table


def _surviving(rows: _Rows, indices: list[int], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the kept rows of some files, with new time stamps where the content was found unchanged.

    What is damaged is left out: its images are then missing, and computed by the next run.
    """
    known = rows.known
    starts = np.searchsorted(known.file, np.arange(len(known.files)))

    def read(i: int) -> Iterable[pa.Table]:
        batches = snapshot.read_checked(rows.store, known.files[i], SMALL)
        if known.files[i].bytes >= SMALL:
            return batches
        with suppress(snapshot.DamagedOutput):
            return list(batches)
        return []

    for i, batches in zip(indices, in_flight(rows.store, read, indices, AHEAD), strict=True):
        row = int(starts[i])
        try:
            for table in batches:
                kept = table.filter(pa.array(rows.keep[row : row + table.num_rows]))
                row += table.num_rows
                if not kept.num_rows:  # it would be a file of its own, after one that is full
                    continue
                stale = i in rows.patched or not set(schema.names) <= set(kept.schema.names)
                yield (_as_listed(kept, rows.want, schema) if stale else kept.select(schema.names)).cast(schema)
        except snapshot.DamagedOutput:
            continue


def _as_listed(table: pa.Table, want: Want, schema: pa.Schema) -> pa.Table:
    """Return rows with the time stamps, versions and carried columns of the listing; errors carry none."""
    listed = rows_at(want.table, positions(table["image_id"].combine_chunks(), want.ids))
    own = [f.name for f in dataset_schema.KEYS] if schema is dataset_schema.ERROR_SCHEMA else listed.schema.names
    columns = [listed[name] if name in own else table[name] for name in schema.names]
    return pa.table(columns, names=schema.names)


def _clean(store: Store, base: Snapshot, parts: list[Part], new: Snapshot) -> None:
    """Delete what the new snapshot supersedes, and what runs that are dead left behind."""
    current = {f.name for f in (*new.results, *new.errors)}
    before = {f.name for f in (*base.results, *base.errors)}
    for part in parts:
        before |= {f.name for f in (part.results, part.errors) if f}
    store.delete(*sorted(before - current))
    store.delete(*(f"{dataset_schema.PARTS}/{part.name}.json" for part in parts))
    versions.delete(store, *(number for number in versions.numbers(store) if number < new.version))


def sweep(store: Store, run: str, epoch: int) -> None:
    """Delete leftovers of dead runs: temporary files, files without a record, records without files, run folders.

    Only names that carry a lock epoch up to this run's own are touched: a later run's files are never garbage to
    an earlier run that slept. A file comes to be, then its record, then the snapshot that names it: looked at in
    this order, none escapes on its way.
    """

    def ours(name: str) -> bool:
        return (dataset_schema.epoch_of(name) or epoch + 1) <= epoch

    found = [
        f"{folder}/{name}" for folder in (dataset_schema.DATA, dataset_schema.ERRORS) for name in store.names(folder)
    ]
    records = store.names(dataset_schema.PARTS)
    alive = {part.name for part in committed(store)}
    current = snapshot.latest(store)
    alive -= set(current.folded)
    used = {f.name for f in (*current.results, *current.errors)}
    used |= {
        f"{folder}/part-{name}.parquet" for name in alive for folder in (dataset_schema.DATA, dataset_schema.ERRORS)
    }
    garbage = [name for name in found if name not in used and ours(name)]
    garbage += [f"{dataset_schema.PARTS}/{n}" for n in records if n.removesuffix(".json") not in alive and ours(n)]
    own = (dataset_schema.PARTS, dataset_schema.VERSIONS, dataset_schema.COPIES, dataset_schema.LEASE, "_cvjobs", ".")
    for folder in (*own, *_runs(store)):
        temporary = [name for name in store.names(folder) if name.startswith(TEMPORARY)]
        garbage += [f"{folder}/{name}" for name in temporary if (dataset_schema.epoch_of(name) or 0) <= epoch]
    garbage += [
        f"{dataset_schema.RUNS}/{n}"
        for n in store.names(dataset_schema.RUNS)
        if n not in (current.run, run) and ours(n)
    ]
    store.delete(*garbage)


def _runs(store: Store) -> list[str]:
    return [f"{dataset_schema.RUNS}/{name}" for name in store.names(dataset_schema.RUNS)]
