"""Checkpoints in a bucket: each one object, and a pointer to it under the next number, put only if that is absent.

A pointer is there once its object is. A command that was overtaken finds the number taken that it would publish under
next, and so never publishes once the later one has. Numbers are never used again: forgetting is a pointer to nothing.
"""

from __future__ import annotations

import re
import secrets
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from cvjobs.common.errors import storage_failure
from cvjobs.dataset import sealed
from cvjobs.storage.bucket_store import BucketStore
from cvjobs.training.loop import folder_shelf
from cvjobs.training.loop.folder_shelf import FOLDER, Checkpoint, Damaged

_POINTER = re.compile(r"([0-9]{8})\.json")
_FILES = frozenset({folder_shelf.MODEL, folder_shelf.AVERAGE, folder_shelf.OPTIMIZER, folder_shelf.META})
_NOTHING = ""


class ObjectShelf:
    """The checkpoints of the run in a bucket; see ``checkpoints.Shelf``. Their names are the numbers of pointers."""

    def __init__(self, store: BucketStore) -> None:
        self._store = store
        self.place, self.room = f"{store.place}/{FOLDER}", tempfile.gettempdir()
        self._last: int | None = None  # the number that was the newest when this shelf was first looked at, or its own

    def begun(self) -> bool:
        """See ``checkpoints.Shelf``."""
        return any(True for _ in self._pointers())

    def names(self) -> list[str]:
        """See ``checkpoints.Shelf``."""
        return [name for name, _ in self._pointers()]

    def there(self, name: str) -> bool:
        """See ``checkpoints.Shelf``."""
        return self._store.size(_pointer(name)) is not None

    def read(self, name: str) -> Checkpoint:
        """See ``checkpoints.Shelf``."""
        try:
            pointer = sealed.unpack(self._store.read(_pointer(name)))
        except FileNotFoundError:
            raise Damaged("it is gone") from None
        if pointer is None or not {"data", "bytes"} <= pointer.keys():
            raise Damaged("its pointer is damaged")
        try:
            return self._fetched(name, pointer["data"], pointer["bytes"])
        except OSError as error:  # of this machine's disk: the bucket's are sentences
            raise storage_failure(error, self.room, "TMPDIR") from error

    def _fetched(self, name: str, data: str, size: int) -> Checkpoint:
        with tempfile.TemporaryDirectory(prefix="cvjobs-") as place, tempfile.TemporaryFile() as file:
            try:
                self._store.fetch(f"{FOLDER}/{data}", file)
            except FileNotFoundError:
                raise Damaged(f"{data} is gone") from None
            if file.tell() != size:
                raise Damaged(f"{data} has {file.tell():,} bytes of {size:,}")
            file.seek(0)
            _unpack(file, Path(place))
            return folder_shelf.read(Path(place), f"{self.place}/{name}")

    def write(self, checkpoint: Checkpoint, check: Callable[[], None]) -> None:
        """See ``checkpoints.Shelf``."""
        done = checkpoint.meta["done"]
        data = f"{done:010}-{secrets.token_hex(6)}.tar"
        with tempfile.TemporaryDirectory(prefix="cvjobs-") as place:
            folder_shelf.fill(Path(place), checkpoint)
            written = self._store.write(f"{FOLDER}/{data}", partial(_pack, Path(place)))
        try:
            check()
            self._publish({"done": done, "data": data, "bytes": written.bytes}, check)
        except BaseException:
            self._store.delete(f"{FOLDER}/{data}")
            raise

    def delete(self, name: str) -> None:
        """See ``checkpoints.Shelf``; the pointer goes first."""
        data = self._data(name)
        self._store.delete(_pointer(name))
        if data:
            self._store.delete(f"{FOLDER}/{data}")

    def forget(self, check: Callable[[], None]) -> None:
        """See ``checkpoints.Shelf``."""
        if self.begun():
            check()
            self._publish({"done": 0, "data": _NOTHING, "bytes": 0}, check)
            self.clean(check)

    def clean(self, check: Callable[[], None]) -> None:
        """See ``checkpoints.Shelf``; the newest pointer stays, for its number."""
        # In this order: what a later command writes is not yet there where ``check`` knows of none.
        there = self._store.names(FOLDER)
        check()
        kept = dict(self._pointers())
        newest = f"{max(self._numbers(), default=0):08}"
        named = {*(f"{name}.json" for name in kept), f"{newest}.json", *kept.values()}
        self._store.delete(*(f"{FOLDER}/{name}" for name in there if name not in named))

    def _publish(self, pointer: dict[str, Any], check: Callable[[], None]) -> None:
        """Put a pointer under the next number; raises as ``check`` where another command has taken that.

        The numbers were looked at before ``check`` was called last.
        """
        if self._last is None:
            self._last = max(self._numbers(), default=0)
            check()
        while not self._store.create(_pointer(f"{self._last + 1:08}"), sealed.pack(pointer)):
            self._last = max(self._numbers(), default=0)  # by this command, before its workers were started again
            check()
        self._last += 1

    def _pointers(self) -> Iterator[tuple[str, str]]:
        """Yield the name of each checkpoint, the newest first, with that of its object, empty where none knows."""
        numbers = self._numbers()
        if self._last is None:
            self._last = max(numbers, default=0)
        for number in sorted(numbers, reverse=True):
            name = f"{number:08}"
            data = self._data(name)
            if data == _NOTHING:
                return
            yield name, data or ""

    def _data(self, name: str) -> str | None:
        """Return what a pointer names; None of one that is damaged or gone."""
        try:
            pointer = sealed.unpack(self._store.read(_pointer(name)))
        except FileNotFoundError:
            return None
        data = (pointer or {}).get("data")
        return data if isinstance(data, str) else None

    def _numbers(self) -> list[int]:
        found = map(_POINTER.fullmatch, self._store.names(FOLDER))
        return [int(match[1]) for match in found if match]


def _pointer(name: str) -> str:
    return f"{FOLDER}/{name}.json"


def _pack(folder: Path, file: BinaryIO) -> None:
    with tarfile.open(fileobj=file, mode="w|") as archive:
        for name in sorted(_FILES):
            if (folder / name).exists():
                archive.add(folder / name, name)


def _unpack(file: BinaryIO, folder: Path) -> None:
    """Write the files of a checkpoint into a folder; raises Damaged where they are not those of one."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if member.name not in _FILES or not member.isfile():
                    raise Damaged("it holds what no checkpoint does")
                archive.extract(member, folder, filter="data")
    except tarfile.TarError as error:
        raise Damaged(str(error).partition("\n")[0][:200]) from error
