"""Checking an index and the answers of a query: every record and file as it was written, and all of them agree."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from cvjobs.common.errors import CvjobsError
from cvjobs.common.formatting import counted
from cvjobs.dataset import contents, lock, schema, sealed_table, versions
from cvjobs.dataset import verify as dataset_verify
from cvjobs.dataset.folder_report import FolderReport
from cvjobs.dataset.sealed_table import UnreadableTable
from cvjobs.indexing import damage, delta, generation, index_files
from cvjobs.indexing.damage import DamagedIndex
from cvjobs.indexing.generation import Generation
from cvjobs.indexing.search import opened_index
from cvjobs.indexing.search.embed_queries import EMBEDDED
from cvjobs.storage.store import Store, in_flight, open_store

AGAIN = "the same `cvjobs index` writes it anew"
OLDER = "to which nobody can go back; the newest one answers"


def verify(store: Store) -> FolderReport:
    """Check all generations that an index keeps; raises WrongUse or JobFailed where none can be read."""
    newest = generation.current(store)
    # Its records may be damaged, and the index's own file count.
    kept = [*(made for made in generation.kept(store) if made.number != newest.number), newest]
    problems, notes = _records(store, newest)
    files = {file.name: file for made in kept for file in made.files}
    flaws = dict(zip(files, in_flight(store, partial(damage.flaw, store), files.values()), strict=True))
    needed = {file.name for file in newest.files}
    for name, why in flaws.items():
        if why and name in needed:
            problems.append(f"{name} {why}: {damage.remedy(store, newest, kept, lambda file: flaws[file.name])}")
        elif why:
            notes.append(f"{name} {why}: an older generation has it, {OLDER}")
    for made in kept:
        if not any(flaws[file.name] for file in made.files):
            found = [f"generation {made.number} {why}: " for why in _faults(store, made)]
            if made.number == newest.number:
                problems += [why + generation.anew(store, newest) for why in found]
            else:
                notes += [f"{why}it is an older one, {OLDER}" for why in found]
    if holder := lock.holder(store):
        notes.append(f"{holder} is writing to it now")
    return FolderReport(
        place=store.place,
        holds=contents.INDEX,
        checked={"generations": len(kept), "files": len(files)},
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _records(store: Store, newest: Generation) -> tuple[list[str], list[str]]:
    """Return what is wrong with the JSON files, and what a kill may leave between two of them."""
    problems, notes = [], []
    said = contents.signature(store)
    if said.get("format") != contents.FORMATS[contents.INDEX] or not isinstance(said.get("source"), str):
        problems.append(f"{schema.FORMAT} is {versions.how(store, schema.FORMAT)}: {AGAIN}")
    for number in versions.numbers(store):
        state = versions.read(store, number)
        for name in versions.damage(store, number):
            gone = store.size(name) is None
            if gone and name == versions.copy_of(number):
                if number == newest.number:
                    notes.append(f"generation {number} has no copy of its record yet: {AGAIN}")
                continue
            counts = contents.INDEX_RECORD if number == newest.number else ""
            if isinstance(state, versions.VersionRecord):
                counts = versions.copy_of(number) if name == versions.name_of(number) else versions.name_of(number)
            remedy = AGAIN if number == newest.number else "delete it and its copy"
            which = f"{name} is {'gone' if gone else 'damaged'}"
            problems.append(f"{which}{f', and {counts} counts' if counts else ''}: {remedy}")
    copy = generation.copied(store)
    if store.size(contents.INDEX_RECORD) is None or (copy is not None and copy.number < newest.number):
        notes.append(f"{contents.INDEX_RECORD} does not describe generation {newest.number} yet: {AGAIN}")
    elif copy != newest:
        problems.append(f"{contents.INDEX_RECORD} is damaged: {AGAIN}")
    return problems, notes


def _faults(store: Store, made: Generation) -> Iterator[str]:
    """Yield where the files of a generation, each as it was written, do not fit together."""
    scratch = Path(tempfile.mkdtemp(prefix="cvjobs-verify-"))
    try:
        paths = index_files.fetch(store, made.files, scratch, ours=True)
        dead = delta.dead_rows(paths)
        total = made.base + made.delta
        if len(dead) and (np.any(np.diff(dead) <= 0) or dead[0] < 0 or dead[-1] >= total):
            yield f"leaves out rows that it has not ({generation.REMOVED})"
            return
        if (len(dead), total - len(dead)) != (made.removed, made.count):
            yield f"says that it has {counted(made.count, 'vectors')}, and has {total - len(dead):,}"
        for name, rows in ((generation.IDS, made.base), (generation.DELTA_IDS, made.delta)):
            held = index_files.read_rows(paths[name], ["path"]).num_rows if name in paths else 0
            if held != rows:
                yield f"has {counted(held, 'rows')} in {name} instead of {rows:,}"
        with opened_index.open_generation(store, made, ours=True):
            pass
    except CvjobsError as error:
        fault = error.fault if isinstance(error, DamagedIndex) else str(error).partition(": ")[0]
        yield f"cannot be opened ({fault})"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def verify_answers(store: Store) -> FolderReport:
    """Check the answers of a query, and the vectors of its queries where they were made for it."""
    problems, notes = [], []
    if contents.signature(store).get("format") != contents.FORMATS[contents.QUERY]:
        problems.append(
            f"{schema.FORMAT} is {versions.how(store, schema.FORMAT)}: the same `cvjobs query` writes it anew"
        )
    names = [name for name in store.names(schema.DATA) if name.endswith(".parquet") and not name.startswith(".")]
    rows = 0
    for name in names:
        try:
            rows += sealed_table.check(store, f"{schema.DATA}/{name}")
        except UnreadableTable as error:
            problems.append(f"{schema.DATA}/{name} {error.words}: the same `cvjobs query` writes it anew")
    if not names:
        notes.append("there is no answer yet: the same command continues")
    folders = store.names(EMBEDDED)
    for folder in folders:
        place = f"{store.place}/{EMBEDDED}/{folder}"
        try:
            found = dataset_verify.verify(open_store(place), None)
            problems += [f"{EMBEDDED}/{folder}: {problem}" for problem in found.problems]
        except CvjobsError as error:
            notes.append(f"{EMBEDDED}/{folder}: {str(error).removesuffix('.')}")
    if holder := lock.holder(store):
        notes.append(f"{holder} is writing to it now")
    return FolderReport(
        place=store.place,
        holds=contents.QUERY,
        checked={"tables": len(names), "rows": rows, "folders of queries": len(folders)},
        problems=tuple(problems),
        notes=tuple(notes),
    )
