"""Checkpoints: there whole or not at all, with their sha256; the newest that verifies wins.

A shelf keeps those of one run: ``folder_shelf`` in its folder, ``object_shelf`` in its bucket.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from torch import Tensor

from cvjobs.common.errors import WrongUse, storage_failure
from cvjobs.storage.bucket_store import BucketStore
from cvjobs.storage.store import Store
from cvjobs.training.loop.folder_shelf import FOLDER, Checkpoint, Damaged, FolderShelf
from cvjobs.training.loop.object_shelf import ObjectShelf

__all__ = ["FOLDER", "Checkpoint", "Checkpoints", "examined", "shelf", "whole"]

KEPT = 2


class Shelf(Protocol):
    """Where the checkpoints of a run are; ``place`` is where a person finds them, ``room`` what may become full."""

    place: str
    room: str

    def begun(self) -> bool:
        """Return whether there is anything, whole or not, of a run that is not forgotten."""

    def names(self) -> list[str]:
        """Return the names of the checkpoints, the newest first."""

    def there(self, name: str) -> bool:
        """Return whether a checkpoint is still there."""

    def read(self, name: str) -> Checkpoint:
        """Return a checkpoint; raises Damaged where it is not whole, WrongUse where it holds more than tensors."""

    def write(self, checkpoint: Checkpoint, check: Callable[[], None]) -> None:
        """Publish a checkpoint; ``check`` may refuse that by raising."""

    def delete(self, name: str) -> None:
        """Delete a checkpoint."""

    def forget(self, check: Callable[[], None]) -> None:
        """Delete all, unless ``check`` refuses that; what an overtaken command still writes is not the newest then."""

    def clean(self, check: Callable[[], None]) -> None:
        """Delete what a writer that was killed left behind, unless ``check`` refuses that by raising."""


def shelf(store: Store) -> Shelf:
    """Return where the checkpoints of the run in a store are."""
    return ObjectShelf(store) if isinstance(store, BucketStore) else FolderShelf(Path(store.place) / FOLDER)


class Checkpoints:
    """Those of one run; one writer, which writes in the background; ``check`` may refuse a write by raising."""

    def __init__(self, store: Store, check: Callable[[], None] = lambda: None) -> None:
        self._shelf, self._check = shelf(store), check
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self.took = 0.0  # s that the last one took to be written

    def save(self, checkpoint: Checkpoint, then: Callable[[], None] | None = None) -> None:
        """Write a checkpoint, of copies made now, and ``then`` what it is the ground of, while training goes on.

        Raises what the one before met.
        """
        self.wait()
        copied = Checkpoint(
            model=_copied(checkpoint.model),
            average=_copied(checkpoint.average),
            optimizer=_copied(checkpoint.optimizer),
            meta=json.loads(json.dumps(checkpoint.meta)),
        )
        self._writing = self._thread.submit(self._timed, copied, then)

    def wait(self) -> None:
        """Return when the last checkpoint is on disk; raises JobFailed or WrongUse where it cannot be written."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            try:
                writing.result()
            except (OSError, SafetensorError) as error:
                raise storage_failure(error, self._shelf.room, begun=True) from error

    def close(self) -> None:
        """Finish what is being written."""
        self._thread.shutdown()

    def _timed(self, checkpoint: Checkpoint, then: Callable[[], None] | None) -> None:
        began = time.monotonic()
        self._write(checkpoint, then)
        self.took = time.monotonic() - began

    def _write(self, checkpoint: Checkpoint, then: Callable[[], None] | None) -> None:
        self._shelf.write(checkpoint, self._check)
        self._check()
        if then is not None:
            then()
        for old in self._names()[KEPT:]:
            self._shelf.delete(old)

    def _names(self) -> list[str]:
        return self._shelf.names()

    def clean(self) -> None:
        """Delete what a writer that was killed left behind."""
        self._shelf.clean(self._check)

    def newest(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, None where there never was one.

        ``warn`` is told which were damaged.

        Raises:
            WrongUse: there are some and none is whole, or one holds more than tensors and was refused.
        """
        names = self._names()
        for name in names:
            try:
                return self._shelf.read(name)
            except Damaged as error:
                warn(f"the checkpoint {self._shelf.place}/{name} is damaged ({error}) and left out")
        if names:
            raise WrongUse(
                f"No checkpoint in {self._shelf.place} is whole, and training does not silently start over: "
                "bring one back, or give --overwrite."
            )
        return None


def whole(store: Store) -> Iterator[Checkpoint]:
    """Yield the checkpoints of a run that are whole, the newest first."""
    kept = shelf(store)
    for name in kept.names():
        with contextlib.suppress(Damaged, WrongUse):
            yield kept.read(name)


def examined(store: Store) -> dict[str, str]:
    """Return what is wrong with each checkpoint of a run, the newest first; empty where nothing is."""
    kept, found = shelf(store), {}
    for name in kept.names():
        try:
            kept.read(name)
            found[name] = ""
        except (Damaged, WrongUse) as error:
            if kept.there(name):  # else the training deleted it, which goes on
                found[name] = str(error)
    return found


def _copied(value: Any) -> Any:
    """Return tensors as copies in the memory of the CPU, in the mappings and lists that hold them."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value
