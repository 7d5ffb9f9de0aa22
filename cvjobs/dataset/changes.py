"""What is left to do: the listing minus what the output already holds for these versions; and the guards.

Resume, the nightly run and the retry of errors are this one subtraction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import counted
from cvjobs.dataset import schema, snapshot
from cvjobs.dataset.keys import RACY, Ints, Known, Mask, Want, choose, distinct, positions, rows_at
from cvjobs.dataset.parts import File
from cvjobs.sources.left_out import EXAMPLES, first_names
from cvjobs.sources.rows import Listing
from cvjobs.storage.store import Store, in_flight

SHRINKAGE = 0.2
NAMED = 3  # of the images that are gone

# Returns the content hashes (16 bytes) of images given their key rows; None where one cannot be read.
Hasher = Callable[[pa.Table], list[bytes | None]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which of the wanted images this run computes.

    ``todo`` are the key rows (and a list's own columns) to compute, ``failures`` those that already failed while
    listing and need an error row; ``reused`` counts the rows that stand. ``void`` and ``settled`` as in
    ``merge.Change``; ``left`` counts images that ``--limit`` leaves for a later run. ``outdated`` are the ids of images
    to compute that have a result of an older content, ``failed_before`` counts those that have an error, and ``gone``
    the known images that are no longer wanted, of which ``first_gone`` has some paths.
    """

    todo: pa.Table
    failures: pa.Table
    reused: int
    left: int
    void: pa.Array
    settled: pa.Array
    outdated: pa.Array
    failed_before: int
    gone: int
    first_gone: tuple[str, ...] = ()

    @property
    def first_changed(self) -> tuple[str, ...]:
        """The paths of the first images that changed."""
        tables = [table.select(["path", "image_id"]) for table in (self.todo, self.failures)]
        found = (table.filter(pc.is_in(table["image_id"], value_set=self.outdated))["path"] for table in tables)
        return tuple(sorted(path for paths in found for path in paths.slice(0, EXAMPLES).to_pylist())[:EXAMPLES])

    @property
    def new(self) -> int:
        """Images to compute that the output has never heard of."""
        return int(self.todo.num_rows) + int(self.failures.num_rows) - len(self.outdated) - self.failed_before


def wanted(store: Store, listing: Listing, known: Known, *, keep: bool = False) -> Want:
    """Return every image the output must account for: what was listed, and rows under unreadable folders.

    ``keep`` adds the known images that are gone: a run with ``--limit`` deletes nothing.
    """
    names = listing.images.schema.names
    failures = listing.failures.select([f.name for f in schema.KEYS])
    table = pa.concat_tables([listing.images, failures], promote_options="default").select(names)
    if (keep or listing.unreadable) and known.files:
        rows = key_rows(store, known)
        new = positions(rows["image_id"].combine_chunks(), table["image_id"].combine_chunks()) < 0
        under: Mask = np.full(len(new), keep)
        for folder in listing.unreadable:
            under |= pc.starts_with(rows["path"], f"{folder}/").to_numpy()
        chosen = np.flatnonzero(under & new)
        images = rows["image_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        _, last = np.unique(images[chosen][::-1], return_index=True)
        chosen = chosen[len(chosen) - 1 - last]
        table = pa.concat_tables([table, rows_at(rows, chosen)], promote_options="default").select(names)
    # The ids alone are joined: the rest would be a second copy of the listing.
    table = table.set_column(names.index("image_id"), "image_id", table["image_id"].combine_chunks())
    return Want(table=table, accepted=table["version"].to_numpy().copy())


def put_off(store: Store, known: Known, want: Want, todo: Plan) -> Want:
    """Return what is wanted where ``--limit`` puts changed images off: their rows as they are known.

    They stay in the results until a later run computes them anew.
    """
    newest = np.full(len(want), -1, np.int64)
    where = positions(known.ids, want.ids)
    usable = (where >= 0) & ~known.failed
    newest[where[usable]] = np.flatnonzero(usable)
    off = (newest >= 0) & (choose(known, want) < 0) & (positions(want.ids, todo.todo["image_id"].combine_chunks()) < 0)
    if not off.any():
        return want
    rows = rows_at(key_rows(store, known), newest[off])
    table = want.table
    mask = pa.array(off)
    for name in ("bytes", "modified", "version"):
        column = pc.replace_with_mask(table[name].combine_chunks(), mask, rows[name].combine_chunks())
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    accepted = want.accepted.copy()
    accepted[off] = known.versions[newest[off]]
    return Want(table=table, accepted=accepted)


def key_rows(store: Store, known: Known) -> pa.Table:
    """Return the key columns of all known rows, in the order of ``known``."""
    keys = [f.name for f in schema.KEYS]

    def read(file: File) -> pa.Table:
        return snapshot.read_table(store, file, keys).cast(pa.schema(schema.KEYS))

    tables = list(in_flight(store, read, known.files))
    return pa.concat_tables(tables) if tables else pa.schema(schema.KEYS).empty_table()


def guard(store: Store, known: Known, want: Want, *, excluded: bool = False) -> None:
    """Raise WrongUse where over 20% of the known images are gone: an unmounted share looks like that.

    Entries that could not even be listed (version 0: a folder that was unreadable once) are no images. ``excluded``
    says that patterns left some out.
    """
    listed = known.versions != 0
    gone = distinct(known.ids.filter(pa.array(listed & (positions(known.ids, want.ids) < 0))))
    lost = len(gone)
    if lost and lost > SHRINKAGE * (before := len(distinct(known.ids.filter(pa.array(listed))))):
        rows = key_rows(store, known)
        paths = pc.unique(rows["path"].filter(pc.is_in(rows["image_id"], value_set=gone)))
        first = sorted(paths.to_pylist())[:NAMED]
        where, check = ("gone from the source", "that it is the whole source")
        if excluded:
            where, check = (f"{where} or excluded", f"{check} and what --exclude names")
        raise WrongUse(
            f"{lost:,} of the {counted(before, 'images')} that {store.place} knows {'is' if lost == 1 else 'are'} "
            f"{where} ({first_names(lost, first)}): check {check}, or pass --allow-deletions to drop their rows."
        )


def plan(
    store: Store,
    known: Known,
    want: Want,
    *,
    started: int,
    failures: pa.Table,
    retry_failed: bool,
    limit: int | None,
    hasher: Hasher,
) -> Plan:
    """Subtract what is known from what is wanted.

    ``started`` is when listing began (ns), ``failures`` are the rows that failed while listing; ``hasher`` reads
    only files whose time stamp proves nothing.
    """
    chosen = choose(known, want)
    done = chosen >= 0
    rows = chosen[done]
    again = known.failed[rows] & (known.retryable[rows] | known.recent[rows] | retry_failed)
    suspect = np.flatnonzero(done)[known.recent[rows] & ~known.failed[rows]]
    same = _look_again(store, known, want, chosen, suspect, hasher)
    changed, settled = suspect[~same], suspect[same & _old(want, suspect, started)]
    done[np.flatnonzero(done)[again]] = False
    done[changed] = False
    ids = want.ids
    listed_failed = positions(ids, failures["image_id"].combine_chunks())
    known_before = np.flatnonzero((chosen >= 0) & (listed_failed >= 0))
    reasons = failures["code"].take(pa.array(listed_failed[known_before])).to_pylist()
    before = _column(store, known, chosen[known_before], "code")
    other = known_before[[a != b for a, b in zip(before, reasons, strict=True)]]  # it fails for another reason now
    news = (chosen < 0) & (listed_failed >= 0)
    news[other] = True
    failures = failures.take(pa.array(listed_failed[news]))
    open_ = np.flatnonzero(~done & (listed_failed < 0))
    todo = open_ if limit is None else open_[:limit]
    table = rows_at(want.table, todo)
    outdated, failed_before = _before(known, table, failures)
    gone = distinct(known.ids.filter(pa.array(positions(known.ids, ids) < 0)))
    return Plan(
        outdated=outdated,
        failed_before=failed_before,
        gone=len(gone),
        first_gone=_first_gone(store, known, gone),
        todo=table,
        failures=failures,
        reused=int((chosen >= 0).sum()) - int((chosen[todo] >= 0).sum()) - len(other),
        left=int((chosen[open_] < 0).sum() - (chosen[todo] < 0).sum()),
        void=ids.take(pa.array(changed)),
        settled=ids.take(pa.array(settled)),
    )


def _first_gone(store: Store, known: Known, gone: pa.Array) -> tuple[str, ...]:
    """Return the paths of some images that are gone; reads only the files that hold them."""
    if not len(gone):
        return ()
    rows = positions(gone.slice(0, EXAMPLES), known.ids)
    return tuple(sorted(path for path in _column(store, known, np.sort(rows), "path") if path))


def _before(known: Known, todo: pa.Table, failures: pa.Table) -> tuple[pa.Array, int]:
    """Return the ids of images to compute that have a result so far, and how many have only an error."""
    ids = pa.concat_arrays([table["image_id"].combine_chunks() for table in (todo, failures)])
    if not len(ids) or not len(known.ids):
        return ids.slice(0, 0), 0
    met = positions(known.ids, ids) >= 0
    outdated = distinct(known.ids.filter(pa.array(met & ~known.failed)))
    return outdated, len(distinct(known.ids.filter(pa.array(met)))) - len(outdated)


def _column(store: Store, known: Known, rows: Ints, name: str) -> list[Any]:
    """Return the values of a column of some rows; None where their file is damaged."""
    starts = np.searchsorted(known.file, np.arange(len(known.files) + 1))
    found: list[Any] = [None] * len(rows)
    for i in np.unique(known.file[rows]):
        try:
            column = snapshot.read_table(store, known.files[i], [name])[name]
        except snapshot.DamagedOutput:
            continue
        mine = np.flatnonzero(known.file[rows] == i)
        taken = column.take(pa.array(rows[mine] - starts[i])).to_pylist()
        for at, value in zip(mine, taken, strict=True):
            found[at] = value
    return found


def same_content(store: Store, known: Known, want: Want, hasher: Hasher) -> Want:
    """Accept the known version of images whose time stamp changed and whose content did not."""
    where = positions(known.ids, want.ids)
    candidate = np.full(len(want), -1, np.int64)
    usable = (where >= 0) & ~known.failed
    candidate[where[usable]] = np.flatnonzero(usable)
    touched = np.flatnonzero((candidate >= 0) & (choose(known, want) < 0))
    if not len(touched):
        return want
    before = _column(store, known, candidate[touched], "content_hash")
    now = hasher(rows_at(want.table, touched))
    same = np.array([a is not None and a == b for a, b in zip(before, now, strict=True)], dtype=np.bool_)
    accepted = want.accepted.copy()
    accepted[touched[same]] = known.versions[candidate[touched[same]]]
    return Want(table=want.table, accepted=accepted)


def _look_again(store: Store, known: Known, want: Want, chosen: Ints, suspect: Ints, hasher: Hasher) -> Mask:
    """Return which of the images that were read within 2 s of their time stamp still have that content."""
    if not len(suspect):
        return np.zeros(0, np.bool_)
    before, now = _column(store, known, chosen[suspect], "content_hash"), hasher(rows_at(want.table, suspect))
    return np.array([a is not None and a == b for a, b in zip(before, now, strict=True)], dtype=np.bool_)


def _old(want: Want, images: Ints, started: int) -> Mask:
    """Return which images' time stamps were old enough to trust when the listing began (ns)."""
    stamps = want.table["modified"].take(pa.array(images)).cast(pa.int64()).to_numpy()
    return np.asarray(stamps < started - RACY, np.bool_)
