"""Collecting images of different sizes into batches of equal shape, within a budget of pixels."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

from cvjobs.images.measured import Measured, together
from cvjobs.images.picture import Picture, Pixels
from cvjobs.prediction.engine.batching import Batch, BatchSize
from cvjobs.prediction.engine.task import PictureStep

BUDGET = 256 << 20  # bytes of pixels that may wait or be with a model
LEAST = 64 << 10  # bytes that a picture counts for, so that tiny ones are bounded in number
LINGER = 2.0  # s that a picture may wait for others of its shape
AHEAD = 2  # full batches that wait for a model


class Bins:
    """Sorts pictures into bins by the shape in which the model sees them; filled from many threads.

    A bin is handed on when it is full, when it has waited for 2 s, and the oldest one when a model has nothing to do
    or there is no room for another picture. Full ones stay while more wait for a model than it takes to keep all of
    them busy, so that a larger batch size is soon in force. One larger than the whole budget passes when it is alone.

    ``pixels`` are the model's at which the search for the batch size begins and ends; ``fixed`` 0 searches.
    """

    def __init__(self, step: PictureStep, fixed: int, pixels: tuple[int, int], models: int) -> None:
        self.ready: queue.Queue[Batch[Any] | None] = queue.Queue()
        self._step, self._fixed, self._pixels, self._models = step, fixed, pixels, models
        self._sizes: dict[int, BatchSize] = {}
        self._bins: dict[tuple[int, int], tuple[float, Batch[list[Picture]]]] = {}  # oldest first
        self._used = 0
        self._alive = 0
        self._changed = threading.Condition()

    def put(self, tag: Any, measured: Measured, pixels: Pixels) -> None:
        """Copy one image, uint8 (height, width, 3), into the bin of its shape; waits for room."""
        shape = self._step.shape(*pixels.shape[:2])
        count = max(pixels.nbytes, LEAST)
        with self._changed:
            while self._used and self._used + count > BUDGET:
                if self._bins and self._alive <= self._models:
                    self._hand_on(next(iter(self._bins)))
                else:
                    self._changed.wait()
            self._used += count
        picture = Picture(pixels.copy(), measured.height, measured.width)
        with self._changed:
            while self._full(shape):
                self._changed.wait()
            if shape not in self._bins:
                self._bins[shape] = time.monotonic(), self._batch(*shape)
            _, batch = self._bins[shape]
            batch.images.append(picture)
            batch.tags.append(tag)
            batch.measured.append(together([measured]))
            self._hurry()
            self._changed.notify_all()

    def stop(self) -> None:
        """Nothing waits here that would not be released."""

    def close(self) -> None:
        """Nothing is held after the last batch."""

    def flush(self) -> None:
        """Hand on what there is: no more images are on their way."""
        with self._changed:
            for shape in list(self._bins):
                self._hand_on(shape)

    def release(self, batch: Batch[list[Picture]]) -> None:
        """Let go of a batch's pictures."""
        with self._changed:
            self._used -= sum(max(picture.pixels.nbytes, LEAST) for picture in batch.images)
            self._alive -= 1
            batch.images.clear()
            self._hurry()
            self._changed.notify_all()

    def _full(self, shape: tuple[int, int]) -> bool:
        if shape not in self._bins:
            return False
        _, batch = self._bins[shape]
        return len(batch.tags) >= batch.capacity

    def _hurry(self) -> None:
        """Hand on full bins, and the oldest ones where a model has nothing to do or they have waited long enough."""
        for shape, (since, _) in list(self._bins.items()):
            if self._full(shape):
                if self._alive < self._models + AHEAD:
                    self._hand_on(shape)
            elif self._alive < self._models or time.monotonic() - since >= LINGER:
                self._hand_on(shape)

    def _hand_on(self, shape: tuple[int, int]) -> None:
        _, batch = self._bins.pop(shape)
        self._alive += 1
        self.ready.put(batch)

    def _batch(self, height: int, width: int) -> Batch[list[Picture]]:
        """Return an empty batch; shapes of up to twice the pixels learn their batch size together."""
        area = height * width
        order = area.bit_length()
        if order not in self._sizes:
            first, last = (1 << max((pixels >> order).bit_length() - 1, 0) for pixels in self._pixels)
            self._sizes[order] = BatchSize(self._fixed, first, last)
        size = self._sizes[order]
        return Batch([], size.now, size, weight=area)
