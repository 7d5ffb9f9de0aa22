"""Damage of an index's files: how it is found, which sentence names it, and which commands mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from cvjobs.common.errors import CvjobsError, JobFailed
from cvjobs.dataset import snapshot
from cvjobs.dataset.parts import File
from cvjobs.dataset.snapshot import DamagedOutput
from cvjobs.indexing import generation
from cvjobs.indexing.generation import Generation
from cvjobs.storage.store import Store


class DamagedIndex(JobFailed):
    """A file of the index is gone, or is not what was written; ``fault`` says so without what mends it."""

    def __init__(self, store: Store, name: str, reason: str) -> None:
        self.fault = f"{store.place}/{name} is damaged ({reason})"
        super().__init__(f"{self.fault}: {_mends(store, name)}.")


def check(store: Store, files: Iterable[File]) -> None:
    """Raise DamagedIndex where a file is gone or has another length than what was written; reads none of them."""
    for name, reason in generation.lacking(store, files):
        raise DamagedIndex(store, name, reason)


def flaw(store: Store, file: File) -> str:
    """Read a file and return how it differs from what was written, empty where it does not."""
    try:
        snapshot.check(store, file)
    except DamagedOutput as error:
        return "is gone" if store.size(file.name) is None else f"is damaged ({error.reason})"
    except CvjobsError as error:
        return f"cannot be read ({str(error).rstrip('.')})"
    return ""


def remedy(store: Store, newest: Generation, kept: Iterable[Generation], damaged: Callable[[File], object]) -> str:
    """Return the commands that mend damage of the newest generation: a rollback only to one that is whole."""
    anew = generation.anew(store, newest)
    before = next((made for made in kept if made.number == newest.previous), None)
    if before is None or any(damaged(file) for file in before.files):
        return anew
    return f"{generation.back(store)}, and {anew}"


def _mends(store: Store, name: str) -> str:
    with suppress(CvjobsError):
        newest, kept = generation.latest(store), generation.kept(store)
        if newest is not None and name in {file.name for file in newest.files}:
            gone = {other for made in kept for other, _ in generation.lacking(store, made.files)} | {name}
            return remedy(store, newest, kept, lambda file: file.name in gone or flaw(store, file))
    return "run the same command again"
