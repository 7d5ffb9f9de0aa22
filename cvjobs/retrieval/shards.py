"""A part of an index that FAISS searches as one: the vectors that were built together, or those that came later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from cvjobs.retrieval.vectors import Floats, Ints

Mask = npt.NDArray[np.bool_]
Ranges = tuple[Ints, Floats, Ints]


class Shard(Protocol):
    """Vectors at the positions from ``first`` on; those that are not live are never returned."""

    first: int

    def search(self, vectors: Floats, k: int) -> tuple[Floats, Ints]:
        """Return the best (n, k) scores and positions, best first; position -1 where there are fewer."""

    def within(self, vectors: Floats, score: float) -> Ranges:
        """Return limits (n + 1,), scores and positions of all that score at least ``score``."""

    def blocks(self, count: int) -> Iterator[tuple[Ints, Floats]]:
        """Yield positions (m,) and vectors (m, dim) of all live rows, ``m`` at most ``count``."""


class Flat:
    """Vectors as they are, compared with every query."""

    def __init__(self, index: Any, first: int, live: Mask | None) -> None:
        self._index, self.first, self._live = index, first, live
        # Mapped from the file where FAISS mapped it: no copy.
        flat = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
        self._vectors: Floats = flat.reshape(index.ntotal, index.d)

    def search(self, vectors: Floats, k: int) -> tuple[Floats, Ints]:
        """See ``Shard.search``.

        FAISS's own selection of rows would compare one by one instead of by matrix products: so more are fetched
        than needed, and again more for the queries where too many of them were not live.
        """
        if self._live is None:
            scores, rows = self._search(vectors, k)
            return scores, np.where(rows >= 0, rows + self.first, -1)
        scores = np.full((len(vectors), k), np.nan, np.float32)
        rows = np.full((len(vectors), k), -1, np.int64)
        open_, wide = np.arange(len(vectors)), k + k // 2 + 8
        while len(open_):
            found, where = self._search(vectors[open_], wide)
            live = (where >= 0) & self._live[where]
            order = np.argsort(~live, axis=1, kind="stable")[:, :k]
            best, kept = np.take_along_axis(where, order, 1), np.take_along_axis(live, order, 1)
            width = best.shape[1]
            rows[open_, :width] = np.where(kept, best + self.first, -1)
            scores[open_, :width] = np.where(kept, np.take_along_axis(found, order, 1), np.nan)
            if wide >= self._index.ntotal:
                break
            open_, wide = open_[live.sum(axis=1) < k], 4 * wide
        return scores, rows

    def _search(self, vectors: Floats, k: int) -> tuple[Floats, Ints]:
        found: tuple[Floats, Ints] = self._index.search(vectors, min(k, self._index.ntotal))
        return found

    def within(self, vectors: Floats, score: float) -> Ranges:
        """See ``Shard.within``."""
        # FAISS returns what scores more than the threshold, not what equals it.
        limits, scores, rows = self._index.range_search(vectors, float(np.nextafter(np.float32(score), np.float32(-2))))
        return select(limits.astype(np.int64), scores, rows, self._live, self.first)

    def blocks(self, count: int) -> Iterator[tuple[Ints, Floats]]:
        """See ``Shard.blocks``."""
        for start in range(0, len(self._vectors), count):
            vectors = self._vectors[start : start + count]
            rows = np.arange(start, start + len(vectors))
            if self._live is not None:
                kept = self._live[rows]
                rows, vectors = rows[kept], vectors[kept]
            if len(rows):
                yield rows + self.first, vectors


def select(limits: Ints, scores: Floats, rows: Ints, live: Mask | None, first: int) -> Ranges:
    """Return the result of a range search without rows that are not live, at positions from ``first`` on."""
    if live is None:
        return limits, scores, rows + first
    kept = live[rows]
    counts = np.concatenate([[0], np.cumsum(kept)])
    return counts[limits], scores[kept], rows[kept] + first


def merge(found: list[tuple[Floats, Ints]], k: int) -> tuple[Floats, Ints]:
    """Return the best (n, k) of several searches, best first; score NaN and position -1 where there are fewer."""
    scores = np.concatenate([scores for scores, _ in found], axis=1)
    rows = np.concatenate([rows for _, rows in found], axis=1)
    if missing := max(0, k - scores.shape[1]):
        scores = np.pad(scores, ((0, 0), (0, missing)))
        rows = np.pad(rows, ((0, 0), (0, missing)), constant_values=-1)
    if len(found) > 1 or missing:
        order = np.argsort(np.where(rows < 0, np.inf, -scores), axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    return np.where(rows < 0, np.float32(np.nan), scores), rows


def join(found: list[Ranges]) -> Ranges:
    """Return several range searches of the same queries as one."""
    if len(found) == 1:
        return found[0]
    counts = np.stack([np.diff(limits) for limits, _, _ in found], axis=1)
    query = np.concatenate([np.repeat(np.arange(len(limits) - 1), np.diff(limits)) for limits, _, _ in found])
    order = np.argsort(query, kind="stable")
    scores = np.concatenate([scores for _, scores, _ in found])[order]
    rows = np.concatenate([rows for _, _, rows in found])[order]
    return np.concatenate([[0], np.cumsum(counts.sum(axis=1))]), scores, rows
