"""Recall against exact search, and the smallest search setting that reaches what is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import faiss
import numpy as np
import numpy.typing as npt

from cvjobs.indexing.vectors import Floats, Ints

K = 10
DEEP = 64  # nearest that are known, for ties with the tenth
TIE = 1e-6
COARSE = 1e-3  # what half floats may be off, where a query has more ties than are known
RERANKS = (2, 4, 8, 16, 32, 64, 128)

# Returns the scores (q, k) and positions (q, k) of queries at a setting (nprobe, rerank).
Search = Callable[[Floats, int, int, int], tuple[Floats, Ints]]


class Nearest:
    """The nearest of some queries among the vectors seen so far, by exact search."""

    def __init__(self, queries: Floats) -> None:
        self.queries = np.ascontiguousarray(queries)
        self.scores = np.zeros((len(queries), 0), np.float32)
        self.rows = np.zeros((len(queries), 0), np.int64)

    def see(self, positions: Ints, vectors: Floats) -> None:
        """Compare the queries with vectors (m, dim)."""
        k = min(DEEP + 1, len(vectors))
        scores, rows = faiss.knn(self.queries, np.ascontiguousarray(vectors), k, metric=faiss.METRIC_INNER_PRODUCT)
        self._merge(scores, positions[rows])

    def _merge(self, scores: Floats, rows: Ints) -> None:
        scores, rows = np.concatenate([self.scores, scores], axis=1), np.concatenate([self.rows, rows], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : DEEP + 1]
        self.scores, self.rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

    def save(self, file: BinaryIO) -> None:
        """Write what was found."""
        np.save(file, self.scores)
        np.save(file, self.rows)

    def load(self, file: BinaryIO) -> None:
        """Take in what was found among other vectors."""
        self._merge(np.load(file), np.load(file))

    def without(self, positions: Ints) -> Nearest:
        """Return the same without each query's own position (q,)."""
        scores = np.where(self.rows == positions[:, None], -np.inf, self.scores).astype(np.float32)
        found = Nearest(self.queries)
        found._merge(scores, self.rows)
        width = min(DEEP, self.rows.shape[1] - 1)
        found.scores, found.rows = found.scores[:, :width], found.rows[:, :width]
        return found


@dataclass(frozen=True, kw_only=True)
class MeasuredSetting:
    """A search setting and the recall that was measured with it."""

    nprobe: int
    rerank: int
    recall: float


def recall(nearest: Nearest, own: Ints, scores: Floats, rows: Ints) -> float:
    """Return the mean share of the true nearest that were found, of at most ``K``; ties with the last one count.

    ``nearest`` is without the queries' own positions ``own``, which the search may have returned.
    """
    k = min(K, nearest.rows.shape[1])
    if not k:
        return 1.0
    threshold = nearest.scores[:, k - 1 : k] - TIE
    true = np.where(nearest.scores >= threshold, nearest.rows, -2)
    drowned = (nearest.scores[:, -1:] >= threshold) & (nearest.rows.shape[1] == DEEP)
    other = rows != own[:, None]
    hits: npt.NDArray[np.bool_] = (rows[:, :, None] == true[:, None, :]).any(axis=2)
    hits |= drowned & (rows >= 0) & (scores >= threshold - COARSE)
    counted = (hits & other & (np.cumsum(other, axis=1) <= k)).sum(axis=1)
    return float(np.minimum(counted, k).mean() / k)


def tune(search: Search, nearest: Nearest, own: Ints, lists: int, reranked: bool, target: float) -> MeasuredSetting:
    """Return the smallest setting that reaches the target on both halves of the queries, or the best there is.

    It is found on one half; its recall is that on the other one.
    """
    halves = [np.arange(half, len(own), 2) if len(own) > 1 else np.arange(len(own)) for half in (0, 1)]

    def measure(half: int, nprobe: int, rerank: int) -> float:
        chosen = halves[half]
        part = Nearest(nearest.queries[chosen])
        part.scores, part.rows = nearest.scores[chosen], nearest.rows[chosen]
        scores, rows = search(part.queries, K + 1, nprobe, rerank)
        return recall(part, own[chosen], scores, rows)

    rerank = 0
    if reranked:
        # The candidates must be enough where every list is looked into, with something to spare for fewer lists.
        wanted = target + min(0.01, (1 - target) / 2)
        rerank = next((r for r in RERANKS if measure(0, lists, r) >= wanted), RERANKS[-1])
    low, high = 0, 1
    while high < lists and measure(0, high, rerank) < target:
        low, high = high, min(2 * high, lists)
    while high - low > max(1, high // 32):
        middle = (low + high) // 2
        low, high = (low, middle) if measure(0, middle, rerank) >= target else (middle, high)
    found = measure(1, high, rerank)
    while found < target and high < lists:
        high = min(lists, math.ceil(1.1 * high))
        found = measure(1, high, rerank)
    return MeasuredSetting(nprobe=high, rerank=rerank, recall=found)
