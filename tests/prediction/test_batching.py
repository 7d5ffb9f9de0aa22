"""Batches whose places are given before there are pixels: every image once, with its own pixels and its own facts."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import numpy as np
import pytest

from cvjobs.images.decode_worker import Places
from cvjobs.images.ipc import fill
from cvjobs.images.measured import MEASURED
from cvjobs.images.picture import Pixels
from cvjobs.prediction.engine.batching import Batcher, BatchSize

pytestmark = pytest.mark.slow

COUNT = 600


def image(tag: int) -> Pixels:
    return np.full((3, 5, 3), tag % 251, np.uint8)


class Decoders:
    """Threads that ask for places as decoders do, and fill them in pieces and in no order; some images fail."""

    def __init__(self, batcher: Batcher, count: int, chance: random.Random, bad: set[int]) -> None:
        self._batcher, self._chance, self._bad = batcher, chance, bad
        self._left, self._lock = COUNT, threading.Lock()
        self._tags = [list(range(first, COUNT, count)) for first in range(count)]
        self.threads = [threading.Thread(target=self._run, args=(tags,), daemon=True) for tags in self._tags]
        for thread in self.threads:
            thread.start()

    def _run(self, tags: list[int]) -> None:
        while tags:
            places = self._batcher.reserve(min(len(tags), self._chance.randrange(1, 12)), wait=True)
            assert places is not None
            taken, tags = tags[: len(places.at)], tags[len(places.at) :]
            order = self._chance.sample(range(len(taken)), len(taken))
            cut = self._chance.randrange(len(taken) + 1)
            for piece in (order[:cut], order[cut:]):  # as where a child died: some of a chunk go again
                if piece:
                    self._fill(places, piece, [taken[i] for i in piece])
            with self._lock:
                self._left -= len(taken)
                last = self._left == 0
            if last:
                self._batcher.flush()

    def _fill(self, places: Places, piece: list[int], tags: list[int]) -> None:
        at = [places.at[i] for i in piece]
        failed = {i for i, tag in enumerate(tags) if tag in self._bad}
        good = [i for i in range(len(tags)) if i not in failed]
        if good:
            images, targets = [image(tags[i]) for i in good], [at[i] for i in good]
            fill(places.buffer.descriptor, images, targets)
        measured = np.zeros(len(tags), MEASURED)
        measured["width"] = [tag + 1 for tag in tags]
        self._batcher.filled(replace(places, at=at), tags, measured, failed)


@pytest.mark.parametrize("bad", ["none", "some", "most", "all", "the last"])
@pytest.mark.parametrize(("first", "last", "alive"), [(1, 1, 1), (4, 32, 2), (7, 7, 5)])
def test_every_image_once_with_its_own_pixels(bad: str, first: int, last: int, alive: int) -> None:
    chance = random.Random(first + alive)
    failed = {
        "none": set(),
        "some": set(chance.sample(range(COUNT), 100)),
        "most": set(range(COUNT)) - set(chance.sample(range(COUNT), 20)),
        "all": set(range(COUNT)),
        "the last": set(range(COUNT - 50, COUNT)),
    }[bad]
    size = BatchSize(first if first == last else 0, first, last)
    batcher = Batcher(size, (3, 5), alive)
    decoders = Decoders(batcher, 3, chance, failed)
    seen: list[int] = []

    def model() -> None:
        while (batch := batcher.ready.get()) is not None:
            count = len(batch.tags)
            assert 0 < count <= batch.capacity
            measured = np.concatenate(batch.measured)
            assert measured["width"].tolist() == [tag + 1 for tag in batch.tags]
            assert np.array_equal(batch.images[:count], np.stack([image(tag) for tag in batch.tags]))
            batch.timed(1.0)
            if chance.random() < 0.02:
                size.too_large(batch.capacity)
            seen.extend(batch.tags)
            batcher.release(batch)

    models = [threading.Thread(target=model, daemon=True) for _ in range(2)]
    for thread in models:
        thread.start()
    for thread in decoders.threads:
        thread.join(30)
        assert not thread.is_alive(), "the decoders stand still"
    for _ in models:
        batcher.ready.put(None)
    for thread in models:
        thread.join(30)
        assert not thread.is_alive()
    assert sorted(seen) == sorted(set(range(COUNT)) - failed)


def test_after_a_stop_nobody_waits_for_places_and_nothing_is_handed_on() -> None:
    batcher = Batcher(BatchSize(2, 2, 2), (3, 5), 1)
    first = batcher.reserve(5, wait=True)
    assert first is not None
    assert first.at == [0, 1]
    assert batcher.reserve(1, wait=False) is None
    waiting = threading.Thread(target=lambda: found.append(batcher.reserve(1, wait=True)), daemon=True)
    found: list[object] = []
    waiting.start()
    batcher.stop()
    waiting.join(10)
    assert found == [None]
    batcher.filled(first, ["a", "b"], np.zeros(2, MEASURED), ())
    assert batcher.ready.empty()


def grown(failed: int) -> int:
    """The batch size in force after 40 batches, each slower by no image more, of which so many have no pixels."""
    size = BatchSize(0, 16, 64)
    batcher = Batcher(size, (3, 5), 1)
    for _ in range(40):
        places = batcher.reserve(64, wait=True)
        assert places is not None
        count = len(places.at)
        batcher.filled(places, list(range(count)), np.zeros(count, MEASURED), range(failed))
        batch = batcher.ready.get(timeout=10)
        assert batch is not None
        batch.timed(1.0)
        batcher.release(batch)
    return size.now


def test_an_image_that_fails_here_and_there_does_not_end_the_search_for_the_batch_size() -> None:
    assert grown(0) == 64
    assert grown(1) == 64
    assert grown(8) == 16  # half a batch does not show what a whole one is worth
