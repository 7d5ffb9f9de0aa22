"""Checking an output: every file as it was written, every image exactly once, nothing that should not be there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from cvjobs.common.errors import CvjobsError, WrongUse
from cvjobs.common.formatting import counted, visible
from cvjobs.common.tabular import Readable
from cvjobs.dataset import changes, contents, keys, lock, parts, run_files, schema, sealed, snapshot, versions
from cvjobs.dataset.keys import Known, Want
from cvjobs.dataset.parts import File, Part
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.dataset.snapshot_reader import open_newest
from cvjobs.sources import reasons
from cvjobs.sources.exclusion import EXCLUDED
from cvjobs.sources.left_out import NamedCount, told
from cvjobs.sources.rows import Listing
from cvjobs.storage.store import Store, in_flight


@dataclass(frozen=True, kw_only=True)
class VerifyReport(Readable):
    """What a check found; ``problems`` are sentences, empty where the output is exact; ``notes`` are no faults.

    ``repaired`` says what was brought back before it; ``skipped_by`` counts what was left out by reason, and
    ``left_out`` has the first names, too, where the source was listed.
    """

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
    repaired: tuple[str, ...] = field(default=())
    skipped_by: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, NamedCount] = field(default_factory=dict)

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
        whole = self.ok + self.failed + self.skipped + self.remaining + self.missing == self.listed
        counts = f"{self.listed:,} listed{' =' if whole else ','} {self.ok:,} ok + {self.failed:,} failed"
        counts += f" + {self.skipped:,} skipped"
        if self.remaining:
            counts += f" + {self.remaining:,} remaining"
        lines = [f"{counts}; duplicates {self.duplicates:,}, missing {self.missing:,}"]
        lines += told(self.left_out)
        lines += [f"  repaired: {visible(sentence)}" for sentence in self.repaired]
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
    late = [part for part in parts.committed(store) if part.name not in base.folded]
    unmerged = [file for part in late for file in (part.results, part.errors) if file]
    checked = in_flight(store, partial(_damage, store), (*base.results, *base.errors, *unmerged))
    problems = [*_records(store, base), *(problem for problem in checked if problem)]
    state = keys.load(store, base, [])
    problems += _counts(base, state)
    want, lost = _frozen(store, base, state) if listing is None else (changes.wanted(store, listing, state), None)
    if lost:
        problems.append(lost)
    unique = len(keys.distinct(state.ids))
    duplicates = len(state.ids) - unique
    if duplicates:
        problems.append(f"{counted(duplicates, 'images have')} more than one row: run the same command again")
    chosen = keys.choose(state, want)
    accounted = int((chosen >= 0).sum())
    strangers = unique - accounted
    open_ = len(want) - accounted
    # Of a row that is there twice, the second one stands for no other image.
    remaining = min(open_, max(base.wanted - base.ok - base.failed, 0)) if listing is None else 0
    missing = open_ - remaining
    if missing:
        again = "run the same command again"
        if listing is not None and EXCLUDED in base.skipped and EXCLUDED not in listing.skipped:
            again = "name with --exclude what it left out"
        problems.append(f"{counted(missing, 'images have')} no row for the present version: {again}")
    if strangers > 0:
        problems.append(f"{counted(strangers, 'rows belong')} to no image of the source: run the same command again")
    strays, notes = _strays(store, base, late)
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
        skipped_by=skipped,
        left_out=reasons.skipped(listing) if listing is not None else {},
    )


def _records(store: Store, base: Snapshot) -> list[str]:
    """Return what is wrong with the records of an output, which a damaged one does not tell of itself."""
    again = "the same command writes it anew"
    # Outputs of earlier versions have no copy yet.
    copy = versions.copy_of(base.version)
    bad = [name for name in versions.damage(store, base.version) if name != copy or store.size(name) is not None]
    found = [f"{name} is {versions.how(store, name)}: {again}" for name in bad]
    if not contents.signature(store):
        found.append(f"{schema.FORMAT} is {versions.how(store, schema.FORMAT)}: {again}")
    for run in {base.run, *store.names(schema.RUNS)}:
        config, name = run_files.read(store, run), run_files.config_name(run)
        if config is None and (run == base.run or store.size(name) is not None):
            found.append(f"{name} is {versions.how(store, name)}: {again}")
        if config and config.listing and run != base.run and (problem := _damage(store, config.listing)):
            found.append(problem)
    others = dict.fromkeys((schema.HISTORY, schema.STATISTICS, schema.PICTURES), "delete it, and pages do without it")
    for name in store.names(schema.PARTS):
        if name.endswith(".json"):
            others[f"{schema.PARTS}/{name}"] = "the same command computes its images again"
    for name, remedy in others.items():
        with suppress(FileNotFoundError):
            if sealed.unpack(store.read(name)) is None:
                found.append(f"{name} is damaged: {remedy}")
    return found


def _counts(base: Snapshot, state: Known) -> list[str]:
    """Return where the snapshot's counts are not those of its files."""
    said = {file.name: file.rows for file in (*base.results, *base.errors)}
    again = "run the same command again"
    return [
        f"the snapshot says {counted(said[file.name], 'rows')} of {file.name}, which has {file.rows:,}: {again}"
        for file in state.files
        if said[file.name] != file.rows
    ]


def _damage(store: Store, file: File) -> str | None:
    """Return what is wrong with a file of the snapshot, or of a part."""
    what = (
        "writes it anew" if file.name.startswith(schema.RUNS) else f"computes its {counted(file.rows, 'images')} again"
    )
    try:
        snapshot.check(store, file)
    except snapshot.DamagedOutput as error:
        if store.size(file.name) is None:
            return f"{file.name} is gone: the same command {what}"
        return f"{file.name} is damaged ({error.reason}): delete it, and the same command {what}"
    except CvjobsError as error:
        return str(error).rstrip(".")
    return None


def _frozen(store: Store, base: Snapshot, state: Known) -> tuple[Want, str | None]:
    """Return what the snapshot's run wanted; where that listing is lost, the images that have rows, and a problem."""
    name = run_files.listing_name(base.run)
    try:
        table = snapshot.read_table(store, File(name=name, rows=base.wanted, bytes=0, sha256=""))
        want = Want(table=table, accepted=table["version"].to_numpy())
        if want.digest() == base.want and len(want) == base.wanted:
            return want, _damage(store, base.listing) if base.listing else None
        remedy = "is not the listing that was published: delete it, and the same command writes it anew"
    except snapshot.DamagedOutput:
        gone = store.size(name) is None
        remedy = f"is {'gone: ' if gone else 'damaged: delete it, and '}the same command writes it anew"
    rows = pa.table({"image_id": state.ids, "version": state.versions})
    table = rows.group_by("image_id").aggregate([("version", "max")])
    want = Want(table=table, accepted=table["version_max"].to_numpy())
    return want, f"{name} {remedy}, and --source tells until then which images are missing"


def _strays(store: Store, base: Snapshot, late: list[Part]) -> tuple[list[str], list[str]]:
    """Return problems and notes about files that are not part of the snapshot."""
    problems, notes = [], []
    if holder := lock.holder(store):
        return [], [f"{holder} is writing to it now"]
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
