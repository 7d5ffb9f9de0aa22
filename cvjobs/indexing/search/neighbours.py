"""The nearest images of a stream of queries as rows ``query, rank, path, score``, in blocks that FAISS likes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cvjobs.indexing.search.self_matches import Itself

if TYPE_CHECKING:
    from cvjobs.indexing.search.opened_index import Index

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Same = Callable[[Ints, Ints], npt.NDArray[np.bool_]]

SCHEMA = pa.schema(
    [
        pa.field("query", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)
AGAIN = 1 << 20  # answers held at once where many of the nearest were left out and more are fetched


@dataclass(frozen=True)
class NeighbourRows:
    """What a block of queries came to: ``rows`` of ``SCHEMA``, their ``positions`` in the index, ``counts`` a query."""

    rows: pa.Table
    positions: Ints
    counts: Ints


def neighbours(
    index: Index, keys: pa.Table, vectors: Floats, k: int, min_score: float | None, itself: Itself | None
) -> NeighbourRows:
    """Return the ``k`` nearest images of each query that score enough; ``keys`` has ``path`` and ``content_hash``."""
    if itself is None:
        scores, rows = index.search(vectors, k)
    else:
        scores, rows = _without(index, vectors, k, _same(itself, keys))
    kept = rows >= 0
    if min_score is not None:
        kept &= scores >= min_score
    counts = kept.sum(axis=1)
    query, place = np.nonzero(kept)
    positions = rows[kept]
    table = pa.table(
        {
            "query": keys["path"].combine_chunks().take(pa.array(query)),
            "rank": pa.array(place + 1).cast(pa.int32()),
            "path": index.rows(positions)["path"],
            "score": pa.array(scores[kept]),
        }
    )
    return NeighbourRows(table.cast(SCHEMA), positions, counts)


def _same(itself: Itself, keys: pa.Table) -> Same:
    """Return what tells whether ``rows`` (m, k) hold the queries numbered ``asked`` (m,) themselves."""
    own = itself.rows(keys["path"])
    content = np.where(own < 0, itself.contents(keys["content_hash"]), -1)

    def same(asked: Ints, rows: Ints) -> npt.NDArray[np.bool_]:
        of_file = (rows == own[asked, None]) & (rows >= 0)
        return np.asarray(of_file | (itself.content_of(rows) == content[asked, None]))

    return same


def _without(index: Index, vectors: Floats, k: int, same: Same) -> tuple[Floats, Ints]:
    """Search for the ``k`` nearest that are not the query itself, fetching more where copies took their places."""
    scores = np.full((len(vectors), k), np.nan, np.float32)
    rows = np.full((len(vectors), k), -1, np.int64)
    todo, width = np.arange(len(vectors)), k + 1
    while len(todo):
        short = []
        for asked in np.array_split(todo, -(-len(todo) * width // AGAIN)):
            found_scores, found = index.search(vectors[asked], width)
            keep = (found >= 0) & ~same(asked, found)
            order = np.argsort(~keep, axis=1, kind="stable")[:, :k]
            kept = np.take_along_axis(keep, order, axis=1)
            scores[asked] = np.where(kept, np.take_along_axis(found_scores, order, axis=1), np.nan)
            rows[asked] = np.where(kept, np.take_along_axis(found, order, axis=1), -1)
            more = (kept.sum(axis=1) < k) & (found[:, -1] >= 0) & (width < len(index))
            short.append(asked[more])
        todo, width = np.concatenate(short), min(4 * width, max(len(index), 1))
    return scores, rows
