"""Collecting images of one size into batches, and finding the batch size by trial on the first real ones."""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from cvjobs.images.decode_worker import Places
from cvjobs.images.ipc import Buffer
from cvjobs.images.measured import Measurements
from cvjobs.images.picture import Pixels

TRIALS = 2
GAIN = 0.95
FULL = 0.9  # of a batch's places with pixels: then its time shows what its size is worth

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

    ``size`` learns from how that goes, in time for ``weight``, which is 1 where all images are of one size. The first
    images are those of the ``tags``, with a record of ``measured`` each.
    """

    images: T
    capacity: int
    size: BatchSize
    weight: float = 1.0
    tags: list[Any] = field(default_factory=list)
    measured: list[Measurements] = field(default_factory=list)

    def timed(self, seconds: float) -> None:
        """Learn how long it took, where that says something: a few images of a batch may have failed."""
        full = len(self.tags) / self.capacity
        if full >= FULL:
            self.size.timed(self.capacity, seconds / full / self.weight)


@dataclass
class FilledBatch(Batch[Pixels]):
    """A batch whose places are given before there are pixels for them."""

    buffer: Buffer | None = None
    taken: int = 0
    answered: int = 0
    sealed: bool = False
    places: list[int] = field(default_factory=list)

    def close_ranks(self) -> None:
        """Move the last images into the places of those that have no pixels."""
        count = len(self.places)
        measured, places = np.concatenate(self.measured), np.array(self.places)
        late = np.flatnonzero(places >= count)
        if len(late):
            holes = np.setdiff1d(np.arange(count), places)
            self.images[holes] = self.images[places[late]]
            places[late] = holes
        source = np.argsort(places)  # of each place: which of the tags
        self.tags = [self.tags[at] for at in source.tolist()]
        self.measured = [measured[source]]
        self.places = list(range(count))


class Batcher:
    """Gives out places in batches to many threads and hands complete batches on; few are alive at once."""

    def __init__(self, size: BatchSize, shape: tuple[int, int], alive: int) -> None:
        self.ready: queue.Queue[Batch[Any] | None] = queue.Queue()
        self._size, self._shape = size, shape
        self._room = alive
        self._free: list[Buffer] = []
        self._open: FilledBatch | None = None
        self._stopped = False
        self._changed = threading.Condition()

    def reserve(self, count: int, wait: bool) -> Places | None:
        """Return places for up to ``count`` images; None where there are none now, or none any more."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._open is not None or self._room > 0 or self._stopped)
            if self._stopped or (self._open is None and self._room == 0):
                return None
            batch = self._open = self._open or self._new()
            assert batch.buffer is not None
            start, end = batch.taken, min(batch.taken + count, batch.capacity)
            batch.taken = end
            if end == batch.capacity:
                batch.sealed, self._open = True, None
            return Places(batch.buffer, list(range(start, end)), batch)

    def filled(self, places: Places, tags: Sequence[Any], measured: Measurements, failed: Collection[int]) -> None:
        """Take the answers about images at some places; the ``failed`` ones (by their number) have no pixels there."""
        batch: FilledBatch = places.batch
        with self._changed:
            batch.answered += len(tags)
            if failed:
                good = [image for image in range(len(tags)) if image not in failed]
                batch.tags += [tags[image] for image in good]
                batch.places += [places.at[image] for image in good]
                batch.measured.append(measured[good])
            else:
                batch.tags += tags
                batch.places += places.at
                batch.measured.append(measured)
            self._hand_on(batch)

    def flush(self) -> None:
        """Hand on a batch that is not full: no more images are on their way."""
        with self._changed:
            batch, self._open = self._open, None
            if batch is not None:
                batch.sealed = True
                self._hand_on(batch)

    def release(self, batch: Batch[Any]) -> None:
        """Take a batch's buffer back for the next one."""
        assert isinstance(batch, FilledBatch)
        assert batch.buffer is not None
        with self._changed:
            self._free.append(batch.buffer)
            self._room += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Give out no more places, and hand no more batches on."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Let go of the buffers, after the last batch."""
        with self._changed:
            self._free.clear()
            self._open = None

    def _new(self) -> FilledBatch:
        self._room -= 1
        count = self._size.now
        for buffer in [buffer for buffer in self._free if len(buffer.images) != count]:
            buffer.dropped = True
            self._free.remove(buffer)
        buffer = self._free.pop() if self._free else Buffer(count, self._shape)
        return FilledBatch(buffer.images, count, self._size, buffer=buffer)

    def _hand_on(self, batch: FilledBatch) -> None:
        if self._stopped or not batch.sealed or batch.answered < batch.taken:
            return
        if batch.tags:
            batch.close_ranks()
            self.ready.put(batch)
        else:
            self.release(batch)
