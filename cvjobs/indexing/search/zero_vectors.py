"""What vectors without a direction are near to: each other, with a cosine of 1, and nothing else, with 0.

A black image has such a vector in some models. A matrix product gives it 0 with everything.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def nearest(scores: Floats, rows: Ints, zeros: Ints) -> tuple[Floats, Ints]:
    """Return the (n, k) answers of n queries that are zero vectors: ``zeros``, then what else was found.

    ``rows`` are -1 where fewer were found; ``zeros`` are the rows of all zero vectors, sorted.
    """
    count, k = rows.shape
    first = zeros[:k]
    others = np.where(np.isin(rows, zeros), -1, rows)
    found = np.concatenate([np.broadcast_to(first, (count, len(first))), others], axis=1)
    cosines = np.concatenate([np.ones((count, len(first)), np.float32), scores], axis=1)
    order = np.argsort(found < 0, axis=1, kind="stable")[:, :k]
    found, cosines = np.take_along_axis(found, order, 1), np.take_along_axis(cosines, order, 1)
    return np.where(found < 0, np.float32(np.nan), cosines), found


def within(ranges: tuple[Ints, Floats, Ints], asked: npt.NDArray[np.bool_], zeros: Ints) -> tuple[Ints, Floats, Ints]:
    """Return the answers (limits, scores, rows) of a range search, of which the ``asked`` queries are zero vectors."""
    limits, scores, rows = ranges
    query = np.repeat(np.arange(len(asked)), np.diff(limits))
    kept = ~(asked[query] & np.isin(rows, zeros))
    them = np.flatnonzero(asked)
    query = np.concatenate([query[kept], np.repeat(them, len(zeros))])
    scores = np.concatenate([scores[kept], np.ones(len(them) * len(zeros), np.float32)])
    rows = np.concatenate([rows[kept], np.tile(zeros, len(them))])
    order = np.argsort(query, kind="stable")
    counts = np.bincount(query, minlength=len(asked))
    return np.concatenate([[0], np.cumsum(counts)]), scores[order], rows[order]
