"""The fold: from a snapshot and unfolded parts to a new snapshot with exactly one row per wanted image.

Deterministic given its inputs, without inference, and safe to be killed anywhere: nothing is deleted before the
new snapshot is published.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.dataset import layout, snapshot
from cvjobs.dataset.known import RACY, Ints, Known, Mask, Want, choose
from cvjobs.dataset.parts import File, Part, write_table
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.errors import OutputHeld
from cvjobs.storage import Store

SMALL = 16 << 20
FULL = 128 << 20


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a fold is given beside the files: the wanted images and what the new snapshot says of itself.

    ``schema`` is that of the results; ``draft`` carries the run, epoch, fingerprint, source and skip counts;
    ``lease`` is the run's lease epoch and ``listed`` when it began to list (ns); ``void`` as in ``known.choose``;
    ``settled`` are ids (16 bytes) whose content was compared after their time stamps were old enough to trust;
    ``abandoned`` are parts of another fingerprint or overwrite epoch; ``merge`` joins small files.
    """

    want: Want
    schema: pa.Schema
    draft: Snapshot
    lease: int
    listed: int
    void: pa.Array
    settled: pa.Array
    abandoned: tuple[Part, ...]
    merge: bool


def fold(store: Store, base: Snapshot, parts: list[Part], known: Known, change: Change) -> Snapshot:
    """Publish the next snapshot and clean up after it; returns ``base`` where nothing changed.

    Raises OutputHeld where another run published first: this run's parts are kept and folded by the next one.
    """
    chosen = choose(known, change.want, change.void)
    keep = np.zeros(len(known.ids), np.bool_)
    keep[chosen[chosen >= 0]] = True
    per_file = np.bincount(known.file[keep], minlength=len(known.files))
    patched = _patched(known, change.want, chosen)
    result_files, error_files = _split(known, base, parts)
    merge = change.merge
    results = _files(store, known, keep, per_file, result_files, patched, change, layout.DATA, change.schema, merge)
    errors = _files(
        store, known, keep, per_file, error_files, patched, change, layout.ERRORS, layout.ERROR_SCHEMA, merge
    )
    new = replace(
        change.draft,
        version=snapshot.next_version(store),
        want=change.want.digest(),
        wanted=len(change.want),
        results=tuple(results),
        errors=tuple(errors),
        recent=_recent(known, chosen, change),
        folded=tuple(sorted(part.name for part in parts)),
        created=snapshot.now(),
    )
    if not parts and _same(base, new):
        sweep(store, base, change.draft.run, change.lease)
        return base
    if not snapshot.publish(store, new):
        raise OutputHeld(f"Another run published {store.place} first: nothing is lost, run the same command again.")
    _clean(store, base, [*parts, *change.abandoned], new)
    sweep(store, new, new.run, change.lease)
    return new


def _same(base: Snapshot, new: Snapshot) -> bool:
    """Return whether a fold changed nothing that a reader could see."""
    fields = ("epoch", "fingerprint", "source", "want", "skipped", "results", "errors", "recent")
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


def _patched(known: Known, want: Want, chosen: Ints) -> dict[int, int]:
    """Return, for rows kept under an older version, the wanted image that gives their new time stamp."""
    touched = np.flatnonzero(want.accepted != want.versions)
    return {int(chosen[i]): int(i) for i in touched if chosen[i] >= 0}


def _files(
    store: Store,
    known: Known,
    keep: Mask,
    per_file: Ints,
    indices: list[int],
    patched: dict[int, int],
    change: Change,
    folder: str,
    schema: pa.Schema,
    merge: bool,
) -> list[File]:
    """Return the files of the new snapshot: whole files as they are, the rest rewritten without the losers."""
    touched = {int(known.file[row]) for row in patched}
    alive = [i for i in indices if per_file[i] > 0]
    rewrite = [i for i in alive if per_file[i] < known.files[i].rows or i in touched]
    if merge:
        small = [i for i in alive if i not in rewrite and known.files[i].bytes < SMALL]
        if len(small) + len(rewrite) > 1:
            rewrite = sorted([*rewrite, *small])
    files = [known.files[i] for i in alive if i not in set(rewrite)]
    pieces = _surviving(store, known, keep, rewrite, patched, change.want, schema)
    while (piece := next(pieces, None)) is not None:
        name = f"{folder}/part-{change.draft.run}-{secrets.token_hex(8)}.parquet"
        files.append(write_table(store, name, schema, _up_to(FULL, piece, pieces)))
    return files


def _up_to(limit: int, first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield tables until they hold ``limit`` bytes."""
    size = first.nbytes
    yield first
    while size < limit and (table := next(rest, None)) is not None:
        size += table.nbytes
        yield table


def _surviving(
    store: Store, known: Known, keep: Mask, indices: list[int], patched: dict[int, int], want: Want, schema: pa.Schema
) -> Iterator[pa.Table]:
    """Yield the kept rows of some files, with new time stamps where the content was found unchanged."""
    starts = np.searchsorted(known.file, np.arange(len(known.files)))
    for i in indices:
        row = int(starts[i])
        for table in snapshot.read_batches(store, known.files[i]):
            span = range(row, row + table.num_rows)
            table = table.select(schema.names).cast(schema)
            updates = [(r - row, patched[r]) for r in span if r in patched] if patched else []
            for name in ("modified", "version") if updates else ():
                values = table[name].to_pylist() if name == "version" else table[name].cast(pa.int64()).to_pylist()
                source = want.table[name] if name == "version" else want.table[name].cast(pa.int64())
                for at, image in updates:
                    values[at] = source[image].as_py()
                column = pa.array(values, pa.uint64() if name == "version" else pa.int64())
                field = schema.field(name)
                table = table.set_column(schema.get_field_index(name), field, column.cast(field.type))
            yield table.filter(pa.array(keep[row : row + table.num_rows]))
            row += table.num_rows


def _clean(store: Store, base: Snapshot, parts: list[Part], new: Snapshot) -> None:
    """Delete what the new snapshot supersedes, and what runs that are dead left behind."""
    current = {f.name for f in (*new.results, *new.errors)}
    before = {f.name for f in (*base.results, *base.errors)}
    for part in parts:
        before |= {f.name for f in (part.results, part.errors) if f}
    for name in sorted(before - current):
        store.delete(name)
    for part in parts:
        store.delete(f"{layout.PARTS}/{part.name}.json")
    for name in store.names(layout.VERSIONS):
        if name.startswith("v") and name < f"v{new.version:08d}.json":
            store.delete(f"{layout.VERSIONS}/{name}")


def sweep(store: Store, current: Snapshot, run: str, epoch: int) -> None:
    """Delete leftovers of dead runs: temporary files, files without a record, old run folders.

    Only names that carry a lease epoch up to this run's own are touched: a later run's files are never garbage to
    an earlier run that slept.
    """
    parts = {name.removesuffix(".json") for name in store.names(layout.PARTS)} - set(current.folded)
    listed = {f.name for f in (*current.results, *current.errors)}
    for folder in (layout.DATA, layout.ERRORS):
        for name in store.names(folder):
            whole = name.startswith("part-") and name.endswith(".parquet")
            used = f"{folder}/{name}" in listed or (whole and name[5:-8] in parts)
            if not used and (layout.epoch_of(name) or epoch + 1) <= epoch:
                store.delete(f"{folder}/{name}")
    for name in store.names(layout.PARTS):
        if name.removesuffix(".json") in current.folded:
            store.delete(f"{layout.PARTS}/{name}")
    for folder in (layout.PARTS, layout.VERSIONS, layout.LEASE, "_cvjobs", ".", *_runs(store)):
        for name in store.names(folder):
            if name.startswith(".tmp-") and (layout.epoch_of(name) or 0) <= epoch:
                store.delete(f"{folder}/{name}")
    for name in store.names(layout.RUNS):
        if name not in (current.run, run) and (layout.epoch_of(name) or 0) <= epoch:
            store.delete(f"{layout.RUNS}/{name}")


def _runs(store: Store) -> list[str]:
    return [f"{layout.RUNS}/{name}" for name in store.names(layout.RUNS)]
