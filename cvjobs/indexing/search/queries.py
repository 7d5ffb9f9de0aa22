"""Queries: the vectors of an ``embed`` output streamed through an index into one Parquet file of neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cvjobs.common import rates
from cvjobs.dataset import parts
from cvjobs.dataset.snapshot_reader import SnapshotReader
from cvjobs.indexing.search.neighbours import SCHEMA, NeighbourRows, neighbours
from cvjobs.indexing.search.output import AnswerFolder
from cvjobs.indexing.search.self_matches import Itself, Origin
from cvjobs.indexing.vectors import ahead, matrix
from cvjobs.prediction.tasks.embed import COLUMN

if TYPE_CHECKING:
    from cvjobs.indexing.search.opened_index import Index

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

NEIGHBOURS = "data/neighbours.parquet"
KEYS = ["path", "image_id", "bytes", "modified", "content_hash"]
BLOCK = 4096  # queries of one search
ANSWERS = 1 << 19  # neighbours of one search
SAMPLE = 50  # queries that are kept to be shown


@dataclass(frozen=True, kw_only=True)
class Queries:
    """The images of an ``embed`` output as of one snapshot, as queries."""

    reader: SnapshotReader

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def origin(self) -> Origin:
        """Where the paths start."""
        return Origin(self.reader.snapshot.root, self.reader.base, self.reader.confined)

    def blocks(self, size: int) -> Iterator[tuple[pa.Table, Floats]]:
        """Yield keys (``KEYS``) and vectors (n, dim) of at most ``size`` queries, by path within a block."""
        for _, table in self.reader.groups([*KEYS, COLUMN]):
            for start in range(0, table.num_rows, size):
                block = table.slice(start, size).sort_by("path")
                yield block.select(KEYS), matrix(block[COLUMN], block.schema.field(COLUMN).type.list_size)


@dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """What is asked of each query: ``k`` neighbours, of this score at least, with or without the query itself."""

    k: int
    min_score: float | None = None
    exclude_self: bool = False


@dataclass(frozen=True, kw_only=True)
class QuerySample:
    """The first queries with what was found: ``keys`` of n queries, ``found`` for them."""

    keys: pa.Table
    found: NeighbourRows

    def each(self) -> Iterator[tuple[str, pa.Table, Ints]]:
        """Yield each query's path with the rows and positions of its neighbours."""
        ends = np.cumsum(self.found.counts)
        for path, count, end in zip(self.keys["path"].to_pylist(), self.found.counts, ends, strict=True):
            yield path, self.found.rows.slice(end - count, count), self.found.positions[end - count : end]


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What a stream of queries came to; ``answered`` queries have a neighbour.

    ``queries_per_second`` is that of ``rates``, 0.0 where there is none.
    """

    queries: int
    answered: int
    neighbours: int
    queries_per_second: float
    sample: QuerySample


def search(
    index: Index,
    queries: Queries,
    options: QueryOptions,
    out: AnswerFolder,
    tell: Callable[[int], object] = lambda _: None,
) -> Searched:
    """Find the neighbours of all queries and publish them as ``NEIGHBOURS``; ``tell`` hears how many are done.

    Reading, searching and writing overlap; memory does not grow with the number of queries.
    """
    meter = rates.Meter()
    count = answered = rows = 0
    first: list[tuple[pa.Table, NeighbourRows]] = []
    itself = None
    if options.exclude_self:
        generation = index.generation
        itself = Itself(index.ids, Origin(generation.root, generation.listed_in), queries.origin)

    k = min(options.k, max(len(index), 1))

    def found() -> Iterator[tuple[pa.Table, NeighbourRows]]:
        for keys, vectors in ahead(queries.blocks(max(min(BLOCK, ANSWERS // k), 1))):
            yield keys, neighbours(index, keys, vectors, k, options.min_score, itself)

    def tables() -> Iterator[pa.Table]:
        nonlocal count, answered, rows
        for keys, block in ahead(found()):
            if count < SAMPLE:
                first.append(_head(keys, block, SAMPLE - count))
            count += keys.num_rows
            answered += int(np.count_nonzero(block.counts))
            rows += block.rows.num_rows
            meter.answered(count)
            tell(count)
            yield block.rows

    notes = {**out.notes, "cvjobs.source": queries.reader.snapshot.source, "cvjobs.k": str(options.k)}
    parts.write_table(out.store, NEIGHBOURS, SCHEMA.with_metadata(notes), tables(), seal=True)
    return Searched(
        queries=count,
        answered=answered,
        neighbours=rows,
        queries_per_second=rates.rounded(meter.rate),
        sample=_joined(first),
    )


def _head(keys: pa.Table, block: NeighbourRows, count: int) -> tuple[pa.Table, NeighbourRows]:
    counts = block.counts[:count]
    total = int(counts.sum())
    return keys.slice(0, count), NeighbourRows(block.rows.slice(0, total), block.positions[:total], counts)


def _joined(blocks: list[tuple[pa.Table, NeighbourRows]]) -> QuerySample:
    if not blocks:
        none = np.zeros(0, np.int64)
        return QuerySample(
            keys=pa.table({"path": pa.array([], pa.string())}), found=NeighbourRows(SCHEMA.empty_table(), none, none)
        )
    found = [block for _, block in blocks]
    return QuerySample(
        keys=pa.concat_tables([keys for keys, _ in blocks]),
        found=NeighbourRows(
            pa.concat_tables([block.rows for block in found]),
            np.concatenate([block.positions for block in found]),
            np.concatenate([block.counts for block in found]),
        ),
    )
