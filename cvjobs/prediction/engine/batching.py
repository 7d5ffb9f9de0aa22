"""Collecting images of one size into batches, and finding the batch size by trial on the first real ones."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from cvjobs.images.decode_worker import Measured
from cvjobs.images.picture import Pixels

TRIALS = 2
GAIN = 0.95

T = TypeVar("T")


class BatchSize:
    """The batch size in force: fixed, or doubled while the time per image falls by 5%; halved on out-of-memory."""

    def __init__(self, fixed: int, smallest: int, largest: int) -> None:
        self._lock = threading.Lock()
        self._now = fixed or smallest
        self._largest = fixed or largest
        self._searching = not fixed
        self._best = self._now
        self._times: dict[int, list[float]] = {}

    @property
    def now(self) -> int:
        """Images in the next batch."""
        return self._now

    def timed(self, count: int, seconds: float) -> None:
        """Learn from a batch that took so long."""
        with self._lock:
            if not self._searching or count != self._now:
                return
            times = self._times.setdefault(count, [])
            times.append(seconds / count)
            if len(times) < TRIALS:
                return
            if count != self._best and min(times) > GAIN * min(self._times[self._best]):
                self._now, self._searching = self._best, False
                return
            self._best = count
            self._searching = 2 * count <= self._largest
            self._now = 2 * count if self._searching else count

    def too_large(self, count: int) -> None:
        """Learn that a batch of this size ran out of memory."""
        with self._lock:
            self._searching = False
            self._largest = max(count // 2, 1)
            self._best = min(self._best, self._largest)
            self._now = min(self._now, self._largest)


@dataclass
class Batch(Generic[T]):
    """Images that go through the model together: uint8 (capacity, height, width, 3), or pictures of equal shape.

    ``size`` learns from how that goes, in time for ``weight``, which is 1 where all images are of one size.
    """

    images: T
    capacity: int
    size: BatchSize
    weight: float = 1.0
    tags: list[Any] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    copied: int = 0
    sealed: bool = False

    def timed(self, seconds: float) -> None:
        """Learn how long it took, where that says something: only a full batch shows what its size is worth."""
        if len(self.tags) == self.capacity:
            self.size.timed(self.capacity, seconds / self.weight)


class Collector(Protocol):
    """Where decoded images wait for each other; decoders put them, model threads get batches from ``ready``."""

    ready: queue.Queue[Batch[Any] | None]

    def put(self, tag: Any, measured: Measured, pixels: Pixels) -> None:
        """Take a copy of one image, uint8 (height, width, 3); waits for room."""

    def flush(self) -> None:
        """Hand on what there is: no more images are on their way."""

    def release(self, batch: Batch[Any]) -> None:
        """Take back a batch that a model is done with."""


class Batcher:
    """Fills batches from many threads and hands complete ones on; waits while too many are alive."""

    def __init__(self, size: BatchSize, allocate: Callable[[int], Pixels], alive: int) -> None:
        self.ready: queue.Queue[Batch[Any] | None] = queue.Queue()
        self._size, self._allocate = size, allocate
        self._room = alive
        self._free: list[Pixels] = []
        self._open: Batch[Pixels] | None = None
        self._changed = threading.Condition()

    def put(self, tag: Any, measured: Measured, pixels: Pixels) -> None:
        """Copy one image, uint8 (height, width, 3), into the open batch."""
        with self._changed:
            self._changed.wait_for(lambda: self._open is not None or self._room > 0)
            if self._open is None:
                self._open = self._new()
            batch = self._open
            at = len(batch.tags)
            batch.tags.append(tag)
            batch.measured.append(measured)
            if len(batch.tags) == batch.capacity:
                batch.sealed, self._open = True, None
        np.copyto(batch.images[at], pixels)
        with self._changed:
            batch.copied += 1
            self._hand_on(batch)

    def flush(self) -> None:
        """Hand on a batch that is not full: no more images are on their way."""
        with self._changed:
            batch, self._open = self._open, None
            if batch is not None:
                batch.sealed = True
                self._hand_on(batch)

    def release(self, batch: Batch[Pixels]) -> None:
        """Take a batch's buffer back for the next one."""
        with self._changed:
            self._free.append(batch.images)
            self._room += 1
            self._changed.notify_all()

    def _new(self) -> Batch[Pixels]:
        self._room -= 1
        count = self._size.now
        self._free = [p for p in self._free if len(p) == count]
        return Batch(self._free.pop() if self._free else self._allocate(count), count, self._size)

    def _hand_on(self, batch: Batch[Pixels]) -> None:
        if batch.sealed and batch.copied == len(batch.tags):
            self.ready.put(batch)
