"""Where the rows of an answer go: a folder that a user named, or a temporary one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cvjobs.common import rules
from cvjobs.dataset import contents, lock, schema
from cvjobs.indexing.generation import Generation
from cvjobs.storage.local_store import TEMPORARY, LocalStore
from cvjobs.storage.storage_options import Options
from cvjobs.storage.store import Store, open_store

SCORES = "scores"  # of a folder's signature


@dataclass(frozen=True, kw_only=True)
class AnswerFolder:
    """A folder for the rows of an answer from the index at ``index``; ``notes`` are kept with the rows.

    ``scores`` is the version of the rules by which they are scored.
    """

    store: Store
    temporary: bool
    index: str
    options: Options
    notes: dict[str, str]
    scores: int = rules.SCORES


@contextmanager
def opened(out: str | None, index: str, generation: Generation, options: Options) -> Iterator[AnswerFolder]:
    """Yield the output ``out``, or a temporary one, which is deleted where an exception ends its use.

    Raises WrongUse for a folder of another command, OutputHeld where another command writes to it.
    """
    place = open_store(index, options=options).place
    notes = {
        "cvjobs.index": place,
        "cvjobs.generation": str(generation.number),
        "cvjobs.embeddings": f"{generation.embeddings} snapshot {generation.version}",
        "cvjobs.fingerprint": generation.fingerprint,
    }
    if out is None:
        folder = tempfile.mkdtemp(prefix="cvjobs-query-")
        try:
            yield AnswerFolder(store=LocalStore(folder), temporary=True, index=place, options=options, notes=notes)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return
    store = open_store(out, options=options)
    contents.check(store, contents.QUERY)
    with lock.held(store) as held:
        store.writer = schema.new_run(held.epoch)
        scores = _scores(store)
        contents.sign(store, contents.QUERY, f"a query of {place}", {SCORES: scores})
        _tidy(store)
        yield AnswerFolder(store=store, temporary=False, index=place, options=options, notes=notes, scores=scores)


def _scores(store: Store) -> int:
    """Return the version of the rules by which a folder's rows are scored: the first where it was begun without."""
    said = contents.signature(store)
    begun = bool(said or contents.ANSWERS & set(store.names(schema.DATA)))
    found = said.get(SCORES, rules.FIRST)
    return (found if type(found) is int else rules.FIRST) if begun else rules.SCORES


def _tidy(store: Store) -> None:
    """Delete what killed commands left half-written."""
    for folder in (schema.DATA, ".", "_cvjobs"):
        for name in store.names(folder):
            if name.startswith(TEMPORARY):
                store.delete(f"{folder}/{name}")
