"""A snapshot that is lost with its copy, made anew from the files of results and errors; no readable row is dropped."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from cvjobs.common import rules
from cvjobs.common.errors import WrongUse
from cvjobs.common.fingerprint import libraries
from cvjobs.common.formatting import counted
from cvjobs.dataset import changes, contents, keys, lock, merge, parts, run_files, schema, snapshot, versions
from cvjobs.dataset.keys import Ints, Known, Want
from cvjobs.dataset.parts import Author, File, Part
from cvjobs.dataset.run_files import RunConfig
from cvjobs.dataset.snapshot import DamagedOutput, Snapshot
from cvjobs.sources.glob import WILDCARDS, split_glob
from cvjobs.sources.hidden import Hiding
from cvjobs.sources.lists import TABLES, TEXTS
from cvjobs.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class _Loose:
    """A file of rows whose snapshot is lost; results tell their facts, schema and source, errors do not."""

    file: File
    is_error: bool
    schema: pa.Schema

    @property
    def fingerprint(self) -> str:
        """That of the rows, empty where the file does not say it."""
        return self.said("cvjobs.fingerprint")

    def said(self, key: str) -> str:
        """Return what the file says of itself under a key."""
        found: bytes = (self.schema.metadata or {}).get(key.encode(), b"")
        return found.decode(errors="replace")


def repair(store: Store, say: Callable[[str], object]) -> list[str]:
    """Bring back what the newest snapshot needs to be read, and return what was done, in sentences.

    A damaged record is written anew from its copy. Where neither can be read, a new snapshot is made of all rows that
    are there, one for each image: that of the version which the last run listed, or else the newest.

    Raises:
        WrongUse: the folder holds no output, or nothing that a snapshot could be made of.
        OutputHeld: another command writes to it.
    """
    contents.check(store, contents.RESULTS, "name the -o folder of a batch job")
    with lock.held(store, say) as held:
        store.writer = schema.new_run(held.epoch)
        try:
            base = snapshot.latest(store)
        except versions.DamagedVersion:
            return _rebuilt(store, held)
        if base.version:
            bad = versions.damage(store, base.version)
            versions.heal(store, base.version)
            return [f"{name} was written anew from its copy" for name in bad]
        if not snapshot.orphans(store):
            raise WrongUse(f"{store.place} holds no finished cvjobs output: name the -o folder of a batch job.")
        return _rebuilt(store, held)


def _rebuilt(store: Store, held: lock.Lock) -> list[str]:
    done: list[str] = []
    loose = _loose(store, done)
    configs = [c for run in reversed(store.names(schema.RUNS)) if (c := run_files.read(store, run))]
    fingerprint = _fingerprint(store, loose, configs)
    others = [entry for entry in loose if entry.fingerprint not in ("", fingerprint)]
    done += [f"{e.file.name} has {counted(e.file.rows, 'rows')} of another model, superseded by now" for e in others]
    configs = [config for config in configs if config.author.fingerprint == fingerprint]
    unfolded = [part for part in parts.committed(store) if part.fingerprint == fingerprint]
    listed = min([c.author.listed for c in configs] + [part.listed for part in unfolded], default=0)
    epoch = max([c.author.epoch for c in configs] + [part.epoch for part in unfolded], default=0)
    author = Author(run=store.writer, epoch=epoch, fingerprint=fingerprint, listed=listed)
    mine = [_part(entry, author) for entry in loose if entry not in others] + unfolded
    known = keys.load(store, Snapshot(version=0), mine)
    want = _want(store, known, configs, done)
    newest = next((entry for entry in reversed(loose) if not entry.is_error and entry not in others), None)
    draft = _draft(store, configs[0] if configs else None, newest, author)
    # Whether a list may lead out of its folder is not known any more where its run's record is lost.
    options = configs[0].options if configs else {"confine": True}
    frozen = run_files.write(store, author, {"command": "verify --repair", "options": options}, draft, want)
    change = merge.Change(
        want=want,
        schema=newest.schema if newest else schema.ERROR_SCHEMA,
        draft=replace(draft, listing=frozen),
        lock=held.epoch,
        listed=time.time_ns(),
        void=pa.array([], schema.ID),
        settled=pa.array([], schema.ID),
        abandoned=(),
        merge=False,
    )
    held.check()
    made = merge.merge(store, Snapshot(version=0), mine, known, change)
    rows = f"{counted(made.ok, 'results')} and {counted(made.failed, 'errors')}"
    return [f"snapshot {made.version} was made anew of {rows}", *done]


def _loose(store: Store, done: list[str]) -> list[_Loose]:
    """Return the files that no part's record names, oldest first; ``done`` is told which cannot be read."""
    found = []
    for name in sorted(snapshot.orphans(store), key=lambda name: (schema.epoch_of(name) or 0, name)):
        digest, length, rows = hashlib.sha256(), 0, 0
        try:
            with store.open(name) as handle:
                while block := handle.read(snapshot.BLOCK):
                    digest.update(block)
                    length += len(block)
            file = File(name=name, rows=0, bytes=length, sha256=digest.hexdigest())
            kind = snapshot.read_schema(store, file)
            for table in snapshot.read_batches(store, file):  # the pages' checksums are compared
                rows += table.num_rows
        except FileNotFoundError:
            continue
        except DamagedOutput as error:
            done.append(f"{name} is damaged, and the same command computes its images again: {error.reason}")
            continue
        is_error = name.startswith(f"{schema.ERRORS}/")
        if not {field.name for field in (schema.ERROR_SCHEMA if is_error else schema.MEASURED)} <= set(kind.names):
            done.append(f"{name} holds no {'errors' if is_error else 'results'}, and was left out")
            continue
        file = File(name=name, rows=rows, bytes=length, sha256=digest.hexdigest())
        found.append(_Loose(file=file, is_error=is_error, schema=kind))
    return found


def _fingerprint(store: Store, loose: list[_Loose], configs: list[RunConfig]) -> str:
    """Return that of the newest results, or of the last run where there are none."""
    said = [entry.fingerprint for entry in reversed(loose) if entry.fingerprint]
    said += [config.author.fingerprint for config in configs]
    said += [part.fingerprint for part in reversed(parts.committed(store))]
    if not said:
        raise WrongUse(f"{store.place} has no file that a snapshot could be made of: choose another -o, and run again.")
    return said[0]


def _part(entry: _Loose, author: Author) -> Part:
    """Return a file as the part that its rows once were."""
    return Part(
        name=entry.file.name.rpartition("/part-")[2].removesuffix(".parquet"),
        run=author.run,
        epoch=author.epoch,
        fingerprint=author.fingerprint,
        listed=author.listed,
        created=0,
        results=None if entry.is_error else entry.file,
        errors=entry.file if entry.is_error else None,
    )


def _want(store: Store, known: Known, configs: list[RunConfig], done: list[str]) -> Want:
    """Return one row for each image that has any, in the version that counts, and the listed images that have none."""
    rows = changes.key_rows(store, known)
    unique = known.ids.unique()
    image = keys.positions(known.ids, unique)
    listing = _listing(store, configs)
    at = keys.positions(unique, listing["image_id"].combine_chunks()) if listing else np.full(len(unique), -1)
    listed = np.zeros(len(unique), np.uint64)
    if listing:
        listed[at >= 0] = listing["version"].to_numpy()[at[at >= 0]]
    current = (at[image] >= 0) & (known.versions == listed[image])
    best: Ints = np.full(len(unique), -1, np.int64)
    best[image] = np.arange(len(image))  # the newest row of each image, and rather one of the listed version
    best[image[current]] = np.flatnonzero(current)
    proven = np.zeros(len(unique), np.bool_)
    proven[image[current]] = True
    if doubtful := int((~proven).sum()):
        why = "the last run's list has another version of them, or none" if listing else "no run's list is left"
        done.append(f"{counted(doubtful, 'rows')} cannot be proven current ({why}): the same command compares them")
    table = keys.rows_at(rows, best)
    if listing:
        new = keys.positions(listing["image_id"].combine_chunks(), unique) < 0
        table = pa.concat_tables([table, listing.filter(pa.array(new)).select(table.schema.names).cast(table.schema)])
    table = table.combine_chunks()
    return Want(table=table, accepted=np.asarray(table["version"].to_numpy(), np.uint64).copy())


def _listing(store: Store, configs: list[RunConfig]) -> pa.Table | None:
    """Return the newest list of what a run wanted that can be read."""
    for config in configs:
        file = config.listing or File(name=run_files.listing_name(config.author.run), rows=0, bytes=0, sha256="")
        with suppress(DamagedOutput):
            if config.listing:
                snapshot.check(store, file)
            return snapshot.read_table(store, file)
    return None


def _draft(store: Store, config: RunConfig | None, newest: _Loose | None, author: Author) -> Snapshot:
    """Return what the snapshot says of itself, from the last run or, of earlier versions, from the results."""
    said = dict(config.draft) if config else {}
    facts = config.facts if config else schema.unpack((newest.said("cvjobs.facts") if newest else "").encode()) or {}
    source = said.get("source") or (newest.said("cvjobs.source") if newest else "")
    source = source or str(contents.signature(store).get("source", ""))
    return Snapshot(
        version=0,
        run=author.run,
        epoch=author.epoch,
        fingerprint=author.fingerprint,
        facts=facts,
        resolved=said.get("resolved", {}),
        source=source,
        root=said.get("root", _root(source)),
        listing_rules=said.get("listing_rules", rules.FIRST),
        skipped=said.get("skipped", {}),
        libraries=said.get("libraries", libraries()),
    )


def _root(source: str) -> str:
    """Return the folder that a source's paths are relative to, empty where it is a list."""
    if source.lower().endswith(TEXTS + TABLES) and not os.path.isdir(source):
        return ""
    if WILDCARDS & set(source) and not os.path.exists(source):
        return split_glob(source, Hiding(rules.LISTING))[0]
    return source if "://" in source or os.path.isdir(source) else os.path.dirname(source)
