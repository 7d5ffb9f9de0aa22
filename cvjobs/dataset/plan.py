"""What is left to do: the listing minus what the output already holds for these versions; and the guards.

Resume, the nightly run and the retry of errors are this one subtraction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.dataset import layout, snapshot
from cvjobs.dataset.known import RACY, Ints, Known, Mask, Want, choose, positions
from cvjobs.errors import WrongUse
from cvjobs.listing import Listing
from cvjobs.storage import Store

SHRINKAGE = 0.2

# Returns the content hashes (16 bytes) of images given their key rows; None where one cannot be read.
Hasher = Callable[[pa.Table], list[bytes | None]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which of the wanted images this run computes.

    ``todo`` are the key rows (and a list's own columns) to compute, ``failures`` those that already failed while
    listing and need an error row; ``reused`` counts the rows that stand. ``void`` and ``settled`` as in
    ``fold.Change``; ``left`` counts images that ``--limit`` leaves for a later run.
    """

    todo: pa.Table
    failures: pa.Table
    reused: int
    left: int
    void: pa.Array
    settled: pa.Array


def wanted(store: Store, listing: Listing, known: Known) -> Want:
    """Return every image the output must account for: what was listed, and rows under unreadable folders."""
    names = listing.images.schema.names
    failures = listing.failures.select([f.name for f in layout.KEYS])
    table = pa.concat_tables([listing.images, failures], promote_options="default").select(names)
    if listing.unreadable and known.files:
        table = pa.concat_tables([table, _hidden(store, listing, known, table)], promote_options="default")
    return Want(table=table.combine_chunks(), accepted=table["version"].to_numpy().copy())


def _hidden(store: Store, listing: Listing, known: Known, table: pa.Table) -> pa.Table:
    """Return the known rows that lie under folders which could not be read this time."""
    keys = [f.name for f in layout.KEYS]
    rows = pa.concat_tables([snapshot.read_table(store, file, keys) for file in known.files])
    under = pc.starts_with(rows["path"], f"{listing.unreadable[0]}/")
    for folder in listing.unreadable[1:]:
        under = pc.or_(under, pc.starts_with(rows["path"], f"{folder}/"))
    rows = rows.filter(under)
    ids = rows["image_id"].combine_chunks()
    new = positions(ids, table["image_id"].combine_chunks()) < 0
    _, last = np.unique(np.array(ids.to_pylist(), dtype=object)[::-1], return_index=True) if len(ids) else ([], [])
    newest = np.zeros(len(ids), np.bool_)
    newest[len(ids) - 1 - np.asarray(last, dtype=np.int64)] = True
    return rows.filter(pa.array(newest & new))


def guard(known: Known, want: Want, out: str) -> None:
    """Raise WrongUse where over 20% of the known images are gone: an unmounted share looks like that."""
    if not len(known.ids):
        return
    unique = pc.unique(known.ids)
    lost = int((positions(unique, want.ids) < 0).sum())
    if lost > SHRINKAGE * len(unique):
        raise WrongUse(
            f"{lost:,} of the {len(unique):,} images that {out} knows are gone from the source: "
            "check that it is the whole source, or pass --allow-deletions to drop their rows."
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
    changed, settled = _look_again(store, known, want, chosen, suspect, started, hasher)
    done[np.flatnonzero(done)[again]] = False
    done[changed] = False
    ids = want.ids
    listed_failed = positions(ids, failures["image_id"].combine_chunks())
    failures = failures.take(pa.array(listed_failed[(chosen < 0) & (listed_failed >= 0)]))
    open_ = np.flatnonzero(~done & (listed_failed < 0))
    todo = open_ if limit is None else open_[:limit]
    return Plan(
        todo=want.table.take(pa.array(todo)),
        failures=failures,
        reused=int((chosen >= 0).sum()) - int((chosen[todo] >= 0).sum()),
        left=int((chosen[open_] < 0).sum() - (chosen[todo] < 0).sum()),
        void=ids.take(pa.array(changed)),
        settled=ids.take(pa.array(settled)),
    )


def _hashes(store: Store, known: Known, rows: Ints) -> list[bytes | None]:
    """Return the recorded content hashes of some rows."""
    starts = np.searchsorted(known.file, np.arange(len(known.files) + 1))
    found: list[bytes | None] = [None] * len(rows)
    for i in np.unique(known.file[rows]):
        column = snapshot.read_table(store, known.files[i], ["content_hash"])["content_hash"]
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
    before = _hashes(store, known, candidate[touched])
    now = hasher(want.table.take(pa.array(touched)))
    same = np.array([a is not None and a == b for a, b in zip(before, now, strict=True)], dtype=np.bool_)
    accepted = want.accepted.copy()
    accepted[touched[same]] = known.versions[candidate[touched[same]]]
    return Want(table=want.table, accepted=accepted)


def _look_again(
    store: Store, known: Known, want: Want, chosen: Ints, suspect: Ints, started: int, hasher: Hasher
) -> tuple[Ints, Ints]:
    """Compare the content of images that were read within 2 s of their time stamp: (changed, settled)."""
    if not len(suspect):
        return suspect, suspect
    keys = want.table.take(pa.array(suspect))
    same: Mask = np.array(
        [a == b for a, b in zip(_hashes(store, known, chosen[suspect]), hasher(keys), strict=True)], dtype=np.bool_
    )
    old = keys["modified"].cast(pa.int64()).to_numpy() < started - RACY
    return suspect[~same], suspect[same & old]
