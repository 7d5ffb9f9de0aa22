"""Which image a training sees when: an order for every epoch that depends on the seed and the epoch alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cvjobs.common.errors import WrongUse
from cvjobs.training.recipe.recipe import Recipe

WINDOW = 8  # chunks whose images are mixed with each other


def order(labels: NDArray[np.integer], recipe: Recipe, seed: int, epoch: int, together: int = 0) -> NDArray[np.int64]:
    """Return as many rows of the training data as it has, in the order of an epoch.

    ``shuffle`` has every row once. ``balanced`` has every class equally often to within one: of a class with few rows
    all are taken before any is repeated.

    Where images are decoded ``together``, that many at a time, ``shuffle`` has them as they come: chunks in a random
    order (``chunk_order``), of which always 8 (``windows``) are mixed with each other.

    Args:
        labels: The class of each row, (N,); with ``shuffle`` only its length matters.
        recipe: ``sampling`` of it.
        seed: Of the run.
        epoch: From 0.
        together: Images of a chunk, which lie there in no order that means anything; 0 for images that are all there.
    """
    # The raw stream of a bit generator is the same in every version of NumPy; that of `permutation` need not be.
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    if recipe.sampling == "shuffle" and together:
        chunks = _shuffled(np.arange(-(-len(labels) // together)), bits)
        mixed = [chunks[start:end] for start, end in windows(len(chunks), epoch)]
        rows = [(some[:, None] * together + np.arange(together)).ravel() for some in mixed]
        return np.concatenate([_shuffled(some[some < len(labels)], bits) for some in rows])
    if recipe.sampling == "shuffle":
        return _shuffled(np.arange(len(labels)), bits)
    if labels.ndim != 1:
        raise WrongUse("--sampling balanced is for images of one class each: use shuffle where an image has several.")
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    share, more = divmod(len(labels), len(rows))
    favoured = set(_shuffled(np.arange(len(rows)), bits)[:more].tolist())
    drawn = [_drawn(own, share + (number in favoured), bits) for number, own in enumerate(rows)]
    return _shuffled(np.concatenate(drawn), bits)


def steps(count: int, global_batch: int, drop_last: bool) -> int:
    """Return the steps of an epoch of ``count`` images; a last one that is not full counts unless it is dropped.

    Raises:
        WrongUse: dropping it leaves none.
    """
    full, rest = divmod(count, global_batch)
    if drop_last and not full:
        raise WrongUse(f"--drop-last leaves nothing of {count} images at {global_batch} a step: lower --batch-size.")
    return full + (rest > 0 and not drop_last)


def chunk_order(images: int, together: int, seed: int, epoch: int = 0) -> NDArray[np.int64]:
    """Return the numbers of the chunks of so many images as an epoch of ``shuffle`` takes them."""
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    return _shuffled(np.arange(-(-images // together)), bits)


def windows(chunks: int, epoch: int) -> list[tuple[int, int]]:
    """Return from where to where in an epoch's order chunks are mixed: in the first one few at first, to begin soon."""
    found, start, many = [], 0, WINDOW if epoch else 1
    while start < chunks:
        found.append((start, min(start + many, chunks)))
        start, many = start + many, min(max(start + many, many), WINDOW)
    return found


def _drawn(rows: NDArray[np.int64], count: int, bits: np.random.Philox) -> NDArray[np.int64]:
    rounds = [_shuffled(rows, bits) for _ in range(-(-count // len(rows)))]
    return np.concatenate([*rounds, rows[:0]])[:count]


def _shuffled(rows: NDArray[np.int64], bits: np.random.Philox) -> NDArray[np.int64]:
    return rows[np.argsort(np.atleast_1d(bits.random_raw(len(rows))), kind="stable")]
