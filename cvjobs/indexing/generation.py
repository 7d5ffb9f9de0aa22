"""Generations: which files make up an index and how they were built, published like the snapshots of a dataset."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.dataset import contents, schema, sealed, typed, versions
from cvjobs.dataset.parts import File
from cvjobs.storage.local_store import TEMPORARY
from cvjobs.storage.store import Store, in_flight

KEPT = 3
BASE, IDS, LISTS, VECTORS = "index.faiss", "ids.parquet", "lists.ivfdata", "vectors.f16"
DELTA, DELTA_IDS, DELTA_VECTORS, REMOVED = "delta.faiss", "delta.parquet", "delta.f16", "removed.parquet"
_FOLDER = re.compile(r"g(\d{6,})-[0-9a-f]{8}")


class DamagedGeneration(JobFailed):
    """The newest generation cannot be read, and neither can its copies."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One published state of an index.

    ``count`` vectors are live: the ``base``'s, which were built together, and the ``delta``'s, which came later, less
    ``removed`` ones; ``churn`` images were new, changed or gone since the base was built. ``fingerprint``, ``facts``,
    ``resolved``, ``source`` and ``root`` are those of the embeddings' snapshot ``version``; ``listed_in`` is the folder
    that a list's relative paths start from, ``confined`` whether images are read from below it alone. ``recall`` is
    recall@10 against exact search, measured when the base was built, with ``queries`` queries; ``nprobe`` and
    ``rerank`` (candidates ÷ neighbours) are the search setting that reached it. It is searched in ``memory`` bytes, of
    ``max_memory`` that were allowed.
    """

    number: int
    previous: int
    kind: str
    factory: str
    dim: int
    count: int
    base: int
    removed: int
    delta: int
    fingerprint: str
    embeddings: str
    version: int
    source: str
    root: str
    listed_in: str
    target_recall: float
    recall: float
    queries: int
    memory: int
    max_memory: int
    built: float
    seconds: float
    churn: int = 0
    nprobe: int = 0
    rerank: int = 0
    metric: str = "cosine"
    confined: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    resolved: dict[str, Any] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)
    files: tuple[File, ...] = ()

    def file(self, name: str) -> File | None:
        """Return the file with this last part of its name."""
        return next((file for file in self.files if file.name.rpartition("/")[2] == name), None)

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.bytes for file in self.files)

    def record(self) -> dict[str, Any]:
        """Return the generation as JSON types."""
        record = {**vars(self), "files": [vars(file) for file in self.files]}
        if not self.confined:
            del record["confined"]  # as in records that are older than it
        return record

    @classmethod
    def load(cls, record: dict[str, Any]) -> Generation:
        """Return the generation that a JSON record describes."""
        return typed.made(cls, {**record, "files": tuple(File.load(file) for file in record["files"])})


def latest(store: Store) -> Generation | None:
    """Return the newest generation, None where there is none yet.

    Raises WrongUse where the folder holds something else, DamagedGeneration where neither the record nor a copy can be
    read.
    """
    head = versions.head(store)
    there = not head or isinstance(versions.read(store, head), versions.VersionRecord)
    if not there and (copy := _instead(store, head)) is not None:
        return copy
    try:
        found = versions.newest(store)
        if found is None:
            return None
        if "folded" in found.record:
            raise WrongUse(f"{store.place} holds embeddings, no index: name the -o folder of `cvjobs index`.")
        return Generation.load(found.record)
    except (versions.DamagedVersion, KeyError, TypeError, AttributeError) as error:
        if contents.INDEX_RECORD not in store.names("."):
            return None  # a kill cut the first one short, while it was created
        if (copy := _instead(store, head)) is not None:
            return copy
        raise DamagedGeneration(
            f"{store.place}/{versions.name_of(head)} is damaged, and no copy of it is whole: {from_the_rest(store)}."
        ) from error


def _instead(store: Store, number: int) -> Generation | None:
    """Return what the index's own file says of a generation whose records are damaged, None where it says nothing."""
    copy = copied(store)
    if copy is None or copy.number != number:
        return None
    versions.say(f"{store.place}/{versions.name_of(number)} is damaged: {contents.INDEX_RECORD} counts")
    return copy


def copied(store: Store) -> Generation | None:
    """Return the generation that the index's own file describes, None where it is gone or damaged."""
    try:
        return Generation.load(sealed.unpack(store.read(contents.INDEX_RECORD)) or {})
    except (FileNotFoundError, KeyError, TypeError, AttributeError):
        return None


def heal(store: Store, current: Generation) -> None:
    """Write what is damaged of the records of the newest generation anew."""
    if isinstance(versions.read(store, current.number), versions.VersionRecord):
        versions.heal(store, current.number)
    else:
        for name in (versions.name_of(current.number), versions.copy_of(current.number)):
            store.write_bytes(name, sealed.pack(current.record()))
    if copied(store) != current:
        store.write_bytes(contents.INDEX_RECORD, sealed.pack(current.record()))


def current(store: Store) -> Generation:
    """Return the newest generation; raises as ``latest``, and WrongUse where there is none."""
    newest = latest(store)
    if newest is None:
        raise contents.none(store, "index", "`cvjobs index`")
    return newest


def kept(store: Store) -> list[Generation]:
    """Return the generations that are still there, oldest first; damaged records are left out."""
    found = []
    for number in versions.numbers(store):
        state = versions.read(store, number)
        if isinstance(state, versions.VersionRecord):
            with suppress(KeyError, TypeError, AttributeError):
                found.append(Generation.load(state.record))
    return found


def lacking(store: Store, files: Iterable[File]) -> list[tuple[str, str]]:
    """Return the name of each file that is gone or has another length, and which; lists each folder once."""
    files = tuple(files)
    folders = list(dict.fromkeys(file.name.rpartition("/")[0] for file in files))
    sizes = dict(zip(folders, in_flight(store, store.sizes, folders), strict=True))
    found = []
    for file in files:
        folder, _, last = file.name.rpartition("/")
        length = sizes[folder].get(last)
        if length != file.bytes:
            found.append((file.name, "it is gone" if length is None else other_length(length, file)))
    return found


def other_length(length: int, file: File) -> str:
    """Return the reason why a file of this length is damaged."""
    return f"it has {length:,} bytes instead of {file.bytes:,}"


def anew(store: Store, newest: Generation) -> str:
    """Return the command that mends an index whatever else there is of it."""
    return f"`{_command(store, newest.embeddings)} --rebuild` builds it anew"


def back(store: Store) -> str:
    """Return the command that goes back to the generation before."""
    return f"`cvjobs index {shlex.quote(store.place)} --rollback` goes back to the generation before"


def from_the_rest(store: Store) -> str:
    """Return the command that mends an index whose newest record cannot be read, nor any copy of it."""
    if any(not lacking(store, made.files) for made in kept(store)):
        return back(store)
    source = contents.signature(store).get("source")
    again = f"`{_command(store, source)}`" if isinstance(source, str) else "the same `cvjobs index`"
    return f"delete {store.place}, and {again} builds it anew"


def _command(store: Store, embeddings: str) -> str:
    return f"cvjobs index {shlex.quote(embeddings)} -o {shlex.quote(store.place)}"


def new_folder(number: int) -> str:
    """Return the name of the folder that a generation's own files go to."""
    return f"g{number:06d}-{secrets.token_hex(4)}"


def publish(store: Store, generation: Generation) -> bool:
    """Publish by put-if-absent; False where another run was first, and then nothing may be deleted."""
    published = versions.publish(store, generation.number, generation.record())
    if published:
        store.write_bytes(contents.INDEX_RECORD, sealed.pack(generation.record()))
    return published


def sweep(store: Store, number: int) -> None:
    """Delete generations but the newest ones, files that none of them names, and leftovers of dead runs.

    ``number`` is the generation that this run has just published: no folder up to it can still be published.
    """
    versions.delete(store, *versions.numbers(store)[:-KEPT])
    left = kept(store)
    whole = {generation.number for generation in left}
    versions.delete(store, *(old for old in versions.numbers(store) if old < number and old not in whole))
    used = {file.name for generation in left for file in generation.files}
    for name in store.names("."):
        made = _FOLDER.fullmatch(name)
        if made and int(made[1]) <= number:
            files = [f"{name}/{entry}" for entry in store.names(name)]
            idle = [file for file in files if file not in used]
            for garbage in [name] if len(idle) == len(files) else idle:
                store.delete(garbage)
    for folder in (schema.VERSIONS, schema.COPIES, schema.LEASE, "_cvjobs", "."):
        for name in store.names(folder):
            if name.startswith(TEMPORARY) and store.writer[:7] >= name.removeprefix(TEMPORARY)[:7]:
                store.delete(f"{folder}/{name}")
