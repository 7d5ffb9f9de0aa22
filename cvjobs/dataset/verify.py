"""Checking an output: every file as it was written, every image exactly once, nothing that should not be there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import visible
from cvjobs.dataset import changes, keys, lock, parts, schema, snapshot
from cvjobs.dataset.keys import Known, Want
from cvjobs.dataset.parts import File
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.dataset.snapshot_reader import open_newest
from cvjobs.sources.rows import Listing
from cvjobs.storage.store import Store, in_flight

BLOCK = 4 << 20


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What a check found; ``problems`` are sentences, empty where the output is exact; ``notes`` are no faults."""

    version: int
    listed: int
    ok: int
    failed: int
    skipped: int
    remaining: int
    missing: int
    duplicates: int
    problems: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """0 where the output is exact, 4 where images are missing, 1 for any other problem."""
        if self.missing:
            return 4
        return 1 if self.problems else 0

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {**vars(self), "exit_code": self.exit_code}

    def __str__(self) -> str:
        counts = f"{self.listed:,} listed = {self.ok:,} ok + {self.failed:,} failed + {self.skipped:,} skipped"
        if self.remaining:
            counts += f" + {self.remaining:,} remaining"
        lines = [f"{counts}; duplicates {self.duplicates:,}, missing {self.missing:,}"]
        lines += [f"  problem: {visible(problem)}" for problem in self.problems]
        lines += [f"  note: {visible(note)}" for note in self.notes]
        lines.append(
            f"snapshot {self.version} is exact" if not self.exit_code else f"snapshot {self.version} is NOT exact"
        )
        return "\n".join(lines)


def verify(store: Store, listing: Listing | None) -> VerifyReport:
    """Check the newest snapshot against its own listing, or against the source as it is listed now.

    Raises WrongUse where the folder holds no snapshot, or the given listing is of another source.
    """
    base = open_newest(store).snapshot
    if listing is not None and listing.source != base.source:
        raise WrongUse(
            f"{store.place} holds the results of {base.source}, not of {listing.source}: name that --source."
        )
    checked = in_flight(store, partial(_damage, store), (*base.results, *base.errors))
    problems = [problem for problem in checked if problem]
    state = keys.load(store, base, [])
    want, lost = _frozen(store, base, state) if listing is None else (changes.wanted(store, listing, state), None)
    if lost:
        problems.append(lost)
    unique = len(pc.unique(state.ids))
    duplicates = len(state.ids) - unique
    if duplicates:
        problems.append(f"{duplicates:,} images have more than one row: run the same command again")
    chosen = keys.choose(state, want)
    accounted = int((chosen >= 0).sum())
    strangers = unique - accounted
    open_ = len(want) - accounted
    # Of a row that is there twice, the second one stands for no other image.
    remaining = min(open_, max(base.wanted - base.ok - base.failed, 0)) if listing is None else 0
    missing = open_ - remaining
    if missing:
        problems.append(f"{missing:,} images have no row for their present version: run the same command again")
    if strangers > 0:
        problems.append(f"{strangers:,} rows belong to no image of the source: run the same command again")
    strays, notes = _strays(store, base)
    skipped = listing.skipped if listing is not None else base.skipped
    return VerifyReport(
        version=base.version,
        listed=len(want) + sum(skipped.values()),
        ok=base.ok,
        failed=base.failed,
        skipped=sum(skipped.values()),
        remaining=remaining,
        missing=missing,
        duplicates=duplicates,
        problems=(*problems, *strays),
        notes=tuple(notes),
    )


def _damage(store: Store, file: File) -> str | None:
    """Return what is wrong with a file of the snapshot."""
    remedy = f"delete it, and the same command computes its {file.rows:,} images again"
    try:
        digest = hashlib.sha256()
        with store.open(file.name) as handle:
            while block := handle.read(BLOCK):
                digest.update(block)
    except FileNotFoundError:
        return f"{file.name} is gone: the same command computes its {file.rows:,} images again"
    except OSError as error:
        return f"{file.name} cannot be read ({error.strerror}): make it readable"
    return None if digest.hexdigest() == file.sha256 else f"{file.name} is damaged (its sha256 differs): {remedy}"


def _frozen(store: Store, base: Snapshot, state: Known) -> tuple[Want, str | None]:
    """Return what the snapshot's run wanted; where that listing is lost, the images that have rows, and a problem."""
    folder = f"{schema.RUNS}/{base.run}"
    name = f"{folder}/{schema.LISTING}"
    try:
        table = snapshot.read_table(store, File(name=name, rows=base.wanted, bytes=0, sha256=""))
        want = Want(table=table, accepted=table["version"].to_numpy())
        if want.digest() == base.want:
            return want, None
        remedy = "is not the listing that was published: delete it, and the same command writes it anew"
    except snapshot.DamagedOutput:
        gone = schema.LISTING not in store.names(folder)
        remedy = f"is {'gone: ' if gone else 'damaged: delete it, and '}the same command writes it anew"
    rows = pa.table({"image_id": state.ids, "version": state.versions})
    table = rows.group_by("image_id").aggregate([("version", "max")])
    want = Want(table=table, accepted=table["version_max"].to_numpy())
    return want, f"{name} {remedy}, and --source tells until then which images are missing"


def _strays(store: Store, base: Snapshot) -> tuple[list[str], list[str]]:
    """Return problems and notes about files that are not part of the snapshot."""
    problems, notes = [], []
    if holder := lock.holder(store):
        return [], [f"{holder} is writing to it now"]
    late = [part for part in parts.committed(store) if part.name not in base.folded]
    if late:
        notes.append(f"{len(late)} parts of a run that did not end are not merged yet: the same command merges them")
    listed = {f.name for f in (*base.results, *base.errors)}
    listed |= {f.name for part in late for f in (part.results, part.errors) if f}
    for folder in (schema.DATA, schema.ERRORS):
        for name in store.names(folder):
            if f"{folder}/{name}" not in listed:
                remedy = "delete it" if schema.epoch_of(name) is None else "run the same command again to clean up"
                problems.append(f"{folder}/{name} is part of no snapshot: {remedy}")
    return problems, notes
