"""Where outputs live: one small interface; ``LocalStore`` is a folder, ``BucketStore`` the objects below a prefix.

Everything that an output gets or loses goes through here: a file is complete under its final name, or absent.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.common.paths import flaw
from cvjobs.storage import mount_points
from cvjobs.storage.bucket_store import BucketStore
from cvjobs.storage.hashing import Written
from cvjobs.storage.local_store import TEMPORARY, LocalStore
from cvjobs.storage.object_store import SCHEMES, address

__all__ = [
    "TEMPORARY",
    "LocalStore",
    "Store",
    "Written",
    "above",
    "begun_store",
    "check_folder",
    "check_place",
    "file_at",
    "in_flight",
    "named",
    "open_store",
]

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Store(Protocol):
    """A folder of immutable files with atomic publish and put-if-absent; names use ``/``.

    ``writer`` names the run that writes; it is part of temporary names, so that only leftovers of dead runs are
    ever cleaned. ``flight`` is how many requests are worth having in flight at once.
    """

    place: str
    writer: str
    flight: int

    def write(self, name: str, fill: Callable[[BinaryIO], None]) -> Written:
        """Publish a file atomically, replacing an existing one; ``fill`` writes its content."""

    def write_bytes(self, name: str, content: bytes) -> Written:
        """Publish a file with this content atomically, replacing an existing one."""

    def create(self, name: str, content: bytes) -> bool:
        """Publish a file unless the name exists; return whether this call created it."""

    def read(self, name: str) -> bytes:
        """Return a file's content; raises FileNotFoundError, or a CvjobsError where the store cannot be read."""

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading at random positions; raises as ``read``."""

    def names(self, folder: str) -> list[str]:
        """Return the entries of a folder, sorted; empty where there is no such folder."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the length in bytes of each file in a folder."""

    def size(self, name: str) -> int | None:
        """Return a file's length in bytes, None where it does not exist."""

    def delete(self, *names: str) -> None:
        """Delete files and folders of files; nothing happens where one does not exist."""


def open_store(
    place: str, writer: str = "reader", options: Mapping[str, str] | None = None, option: str = "-o"
) -> Store:
    """Return the store behind an output's name, which a user gave with ``option``.

    Raises WrongUse for a file, for a link to nowhere, for a name that no folder can have and for a scheme that is not
    supported.
    """
    if why := flaw(place):
        raise WrongUse(f"The name {place[:80]!r} {why}.")
    if bucket := address(place):
        return BucketStore(bucket, writer, options or {})
    root = _path(place).absolute()
    check_folder(root, option)
    return LocalStore(root, writer, option)


def begun_store(place: str, options: Mapping[str, str], guard: Callable[[], None] | None = None) -> Store:
    """Return the store of an output that a command has opened and written to; ``guard`` may refuse a write by raising.

    It is asked when all of a file is there and about to get its name.
    """
    if bucket := address(place):
        return BucketStore(bucket, "reader", options, guard)
    return LocalStore(place, begun=True, guard=guard)


def file_at(place: str, options: Mapping[str, str] | None = None, option: str = "-o") -> tuple[Store, str]:
    """Return the store of one file, named as a user names it with ``option``, and its name there.

    Raises WrongUse where the name is a folder's, one that no file can have, a link to nowhere, or of a scheme that is
    not supported.
    """
    if place and (why := flaw(place)):
        raise WrongUse(f"The name {place[:80]!r} {why}.")
    folder, _, name = place.rpartition("/")
    bucket = address(place)
    if not name or (not bucket.key if bucket else os.path.isdir(_path(place))):
        raise WrongUse(f"{place or 'The empty name'} is a folder: name a file with {option}.")
    if not bucket:
        check_place(_path(place).absolute(), option)
    store = open_store(folder or ("/" if place.startswith("/") else "."), options=options, option=option)
    if isinstance(store, LocalStore):
        store.own = False
    return store, name


def named(place: str, options: Mapping[str, str] | None = None) -> Store:
    """Return the store of a place that a user named, be it a folder, a file or nothing yet."""
    if bucket := address(place):
        return BucketStore(bucket, "reader", options or {})
    return LocalStore(_path(place).absolute())


def above(store: Store) -> Iterator[tuple[str, Store]]:
    """Yield the folders that a store's lies in, the nearest first, each with the name in it that leads there."""
    if isinstance(store, LocalStore):
        below = Path(os.path.realpath(store.root))
        for parent in below.parents:
            yield below.name, LocalStore(parent)
            below = parent
    elif isinstance(store, BucketStore):
        while store.root.key:
            name = store.root.key.rpartition("/")[2]
            store = store.parent()
            yield name, store


def check_place(place: Path, option: str) -> None:
    """Raise WrongUse where a place, or else the nearest above it that is there, is a link that leads nowhere.

    And where nothing is there, for it is on a disk that is not mounted.
    """
    if disk := mount_points.missing(place):
        raise WrongUse(
            f"{place} is on {disk}, which {mount_points.LISTED} lists and which is not mounted: mount it, or choose "
            f"another {option}."
        )
    there = next((path for path in (place, *place.parents) if os.path.lexists(path)), place)
    try:
        os.stat(there)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP) or not os.path.islink(there):
            return
        aim = os.readlink(there)
        raise WrongUse(
            f"{there} is a link to {aim}, which leads nowhere: make what it leads to, or choose another {option}."
        ) from error


def check_folder(place: Path, option: str) -> None:
    """Raise WrongUse where ``check_place`` does, and where a file is at the place of a folder, or above it."""
    check_place(place, option)
    # The functions of pathlib would raise for a folder above that is closed.
    there = next((path for path in (place, *place.parents) if os.path.exists(path)), place)
    if os.path.exists(there) and not os.path.isdir(there):
        raise WrongUse(f"{there} is a file: name {'a' if there == place else 'another'} folder with {option}.")


def _path(place: str) -> Path:
    """Return the path of a folder or file of this machine; raises WrongUse for a scheme that is not supported."""
    scheme, separator, rest = place.partition("://")
    if separator and scheme != "file":
        near = nearest(scheme, SCHEMES, 1)
        raise WrongUse(f"Outputs on {scheme}:// are not supported{near}: use a folder, or s3://, gs:// or az://.")
    return Path(os.path.expanduser(rest if separator else place))


def in_flight(
    store: Store, ask: Callable[[Item], Answer], items: Iterable[Item], most: int | None = None
) -> Iterator[Answer]:
    """Yield the answers for items in their order, with several requests in flight where the store gains by it.

    ``most`` limits the requests in flight; twice as many answers may wait to be taken.
    """
    count = min(store.flight, most or store.flight)
    if count == 1:
        yield from map(ask, items)
        return
    waiting: deque[Future[Answer]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="store") as threads:
        try:
            for item in items:
                waiting.append(threads.submit(ask, item))
                if len(waiting) == 2 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)
