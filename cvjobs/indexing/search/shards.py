"""A part of an index that FAISS searches as one: the vectors that were built together, or those that came later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from cvjobs.indexing.vectors import Floats, Ints, unit

Halves = npt.NDArray[np.float16]
Mask = npt.NDArray[np.bool_]
Ranges = tuple[Ints, Floats, Ints]

GATHERED = 32 << 20  # bytes of candidates that are compared at once
SLACK = 0.1  # what a code's score may be off


class IndexShard(Protocol):
    """Some of the vectors; those that are not live are never returned."""

    def search(self, vectors: Floats, k: int) -> tuple[Floats, Ints]:
        """Return the best (n, k) scores and positions, best first; position -1 where there are fewer."""

    def within(self, vectors: Floats, score: float) -> Ranges:
        """Return limits (n + 1,), scores and positions of all that score at least ``score``."""

    def blocks(self, count: int) -> Iterator[tuple[Ints, Floats]]:
        """Yield positions (m,) and vectors (m, dim) of all live rows, ``m`` at most ``count``."""


class Flat:
    """Vectors as they are, compared with every query."""

    def __init__(self, index: Any, first: int, live: Mask | None) -> None:
        self._index, self._first, self._live = index, first, live
        # Mapped from the file where FAISS mapped it: no copy.
        flat = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
        self._vectors: Floats = flat.reshape(index.ntotal, index.d)

    def search(self, vectors: Floats, k: int) -> tuple[Floats, Ints]:
        """See ``IndexShard.search``.

        FAISS's own selection of rows would compare one by one instead of by matrix products: so more are fetched
        than needed, and again more for the queries where too many of them were not live.
        """
        if self._live is None:
            scores, rows = self._search(vectors, k)
            return scores, np.where(rows >= 0, rows + self._first, -1)
        scores = np.full((len(vectors), k), np.nan, np.float32)
        rows = np.full((len(vectors), k), -1, np.int64)
        open_, wide = np.arange(len(vectors)), k + k // 2 + 8
        while len(open_):
            found, where = self._search(vectors[open_], wide)
            live = (where >= 0) & self._live[where]
            order = np.argsort(~live, axis=1, kind="stable")[:, :k]
            best, kept = np.take_along_axis(where, order, 1), np.take_along_axis(live, order, 1)
            width = best.shape[1]
            rows[open_, :width] = np.where(kept, best + self._first, -1)
            scores[open_, :width] = np.where(kept, np.take_along_axis(found, order, 1), np.nan)
            if wide >= self._index.ntotal:
                break
            open_, wide = open_[live.sum(axis=1) < k], 4 * wide
        return scores, rows

    def _search(self, vectors: Floats, k: int) -> tuple[Floats, Ints]:
        found: tuple[Floats, Ints] = self._index.search(vectors, min(k, self._index.ntotal))
        return found

    def within(self, vectors: Floats, score: float) -> Ranges:
        """See ``IndexShard.within``."""
        limits, scores, rows = self._index.range_search(vectors, below(score))
        return select(limits.astype(np.int64), scores, rows, self._live, self._first)

    def blocks(self, count: int) -> Iterator[tuple[Ints, Floats]]:
        """See ``IndexShard.blocks``."""
        for start in range(0, len(self._vectors), count):
            vectors = self._vectors[start : start + count]
            rows = np.arange(start, start + len(vectors))
            if self._live is not None:
                kept = self._live[rows]
                rows, vectors = rows[kept], vectors[kept]
            if len(rows):
                yield rows + self._first, vectors


class Lists:
    """Vectors in inverted lists under their positions, searched in the ``nprobe`` lists nearest to a query.

    With ``vectors`` (half floats, by position from ``first`` on), ``rerank`` times as many candidates as neighbours
    are compared with the query once more.
    """

    def __init__(
        self, index: Any, first: int, live: Mask | None, setting: tuple[int, int], vectors: Halves | None
    ) -> None:
        self._index, self._first, self._live, self._vectors = index, first, live, vectors
        self._ivf = faiss.extract_index_ivf(index)
        self._selector = None
        if live is not None:
            self._bits = np.packbits(live, bitorder="little")
            self._selector = faiss.IDSelectorBitmap(len(live), faiss.swig_ptr(self._bits))
        self.nprobe, self.rerank = setting

    def _parameters(self) -> Any:
        own = faiss.SearchParametersIVF(nprobe=self.nprobe, sel=self._selector)
        if isinstance(self._index, faiss.IndexPreTransform):
            return faiss.SearchParametersPreTransform(index_params=own)
        return own

    def search(self, vectors: Floats, k: int) -> tuple[Floats, Ints]:
        """See ``IndexShard.search``."""
        if self._vectors is None:
            found: tuple[Floats, Ints] = self._index.search(vectors, k, params=self._parameters())
            return found
        scores = np.empty((len(vectors), k), np.float32)
        rows = np.empty((len(vectors), k), np.int64)
        wide = k * self.rerank
        step = max(1, GATHERED // (4 * wide * self._index.d))
        for start in range(0, len(vectors), step):
            queries = vectors[start : start + step]
            _, where = self._index.search(queries, wide, params=self._parameters())
            exact = np.einsum("qd,qcd->qc", queries, self._gathered(where.ravel()).reshape(*where.shape, -1))
            exact[where < 0] = -np.inf
            order = np.argsort(-exact, axis=1, kind="stable")[:, :k]
            scores[start : start + step] = np.take_along_axis(exact, order, 1)
            rows[start : start + step] = np.take_along_axis(where, order, 1)
        return scores, rows

    def _gathered(self, rows: Ints) -> Floats:
        assert self._vectors is not None
        return self._vectors[np.maximum(rows - self._first, 0)].astype(np.float32)

    def within(self, vectors: Floats, score: float) -> Ranges:
        """See ``IndexShard.within``; of coded vectors, candidates may score ``SLACK`` less before they are compared."""
        if self._vectors is None:
            return self._within(vectors, score)
        limits, _, rows = self._within(vectors, score - SLACK)
        exact = np.empty(len(rows), np.float32)
        query = np.repeat(np.arange(len(vectors)), np.diff(limits))
        step = max(1, GATHERED // (4 * self._index.d))
        for start in range(0, len(rows), step):
            block = slice(start, start + step)
            exact[block] = np.einsum("cd,cd->c", vectors[query[block]], self._gathered(rows[block]))
        kept = exact >= score
        counts = np.concatenate([[0], np.cumsum(kept)])
        return counts[limits], exact[kept], rows[kept]

    def _within(self, vectors: Floats, score: float) -> Ranges:
        limits, scores, rows = self._index.range_search(vectors, below(score), params=self._parameters())
        return limits.astype(np.int64), scores, rows

    def blocks(self, count: int) -> Iterator[tuple[Ints, Floats]]:
        """See ``IndexShard.blocks``."""
        if self._vectors is not None:
            for start in range(0, len(self._vectors), count):
                rows = np.arange(start, min(start + count, len(self._vectors))) + self._first
                if len(rows := rows if self._live is None else rows[self._live[rows]]):
                    yield rows, unit(self._gathered(rows))
            return
        held: list[tuple[Ints, Halves]] = []
        for number in range(self._ivf.nlist):
            rows, vectors = self._list(number)
            while len(rows):
                room = count - sum(len(rows) for rows, _ in held)
                held.append((rows[:room], vectors[:room]))
                rows, vectors = rows[room:], vectors[room:]
                if len(held[-1][0]) == room:
                    yield _joined(held)
                    held = []
        if held:
            yield _joined(held)

    def _list(self, number: int) -> tuple[Ints, Halves]:
        """Return the live positions in a list and their vectors, whose codes are half floats."""
        lists, size = self._ivf.invlists, self._ivf.code_size
        length = lists.list_size(number)
        if not length:
            return np.zeros(0, np.int64), np.zeros((0, self._ivf.d), np.float16)
        rows = faiss.rev_swig_ptr(lists.get_ids(number), length).copy()
        codes = faiss.rev_swig_ptr(lists.get_codes(number), length * size)
        vectors = codes.view(np.float16).reshape(length, self._ivf.d)
        if self._live is None:
            return rows, vectors
        kept = self._live[rows]
        return rows[kept], vectors[kept]


def _joined(held: list[tuple[Ints, Halves]]) -> tuple[Ints, Floats]:
    vectors = np.concatenate([vectors for _, vectors in held]).astype(np.float32)
    return np.concatenate([rows for rows, _ in held]), unit(vectors)


def below(score: float) -> float:
    """Return the threshold for FAISS, which returns what scores more, not what equals it."""
    return float(np.nextafter(np.float32(score), np.float32(-2)))


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
