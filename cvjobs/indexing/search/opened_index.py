"""An index as it is searched: one generation, its files checked, removed vectors left out, later ones included."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cvjobs.common import rules
from cvjobs.common.errors import WrongUse
from cvjobs.dataset.keys import rows_at
from cvjobs.indexing import generation as indexing_generation
from cvjobs.indexing import index_files
from cvjobs.indexing.damage import DamagedIndex
from cvjobs.indexing.delta import dead_rows
from cvjobs.indexing.generation import Generation
from cvjobs.indexing.search import zero_vectors
from cvjobs.indexing.search.shards import Flat, IndexShard, Lists, Mask, join, merge
from cvjobs.indexing.vectors import Floats, Ints, unit
from cvjobs.storage.storage_options import Options
from cvjobs.storage.store import Store, open_store

BLOCK = 4096  # vectors that are read at once


class Index:
    """One generation of an index; positions of rows count through what was built together, then what came later.

    ``scores`` is the version of the rules by which it scores: by the first, rounding may add to 1, and a zero vector
    has a cosine of 0 with all others.
    """

    scores: int = rules.SCORES

    def __init__(self, generation: Generation, paths: dict[str, Path], shards: list[IndexShard], removed: Ints) -> None:
        self.generation = generation
        self._paths, self._shards, self._removed = paths, shards, removed
        self._clean: Callable[[], object] = lambda: None

    def __len__(self) -> int:
        return self.generation.count

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def search(self, vectors: npt.ArrayLike, k: int) -> tuple[Floats, Ints]:
        """Return the ``k`` nearest of each of ``vectors`` (n, dim): cosines (n, k) float32, and positions (n, k) int64.

        Best first; NaN and -1 where the index holds fewer, or the lists that were looked into do. Two zero vectors
        have a cosine of 1, a zero vector and any other one 0.
        """
        queries = self._checked(vectors)
        scores, rows = merge([shard.search(queries, k) for shard in self._shards], k)
        if self.scores == rules.FIRST:
            return scores, rows
        if len(zero := np.flatnonzero(~queries.any(axis=1))):
            scores[zero], rows[zero] = zero_vectors.nearest(scores[zero], rows[zero], self._zeros)
        return _cosines(scores), rows

    def within(self, vectors: npt.ArrayLike, score: float) -> tuple[Ints, Floats, Ints]:
        """Return all that have at least this cosine: limits (n + 1,), cosines and positions, in no order.

        What was found for query ``i`` is at ``limits[i]:limits[i + 1]``.
        """
        queries = self._checked(vectors)
        limits, scores, rows = join([shard.within(queries, score) for shard in self._shards])
        if self.scores == rules.FIRST:
            return limits, scores, rows
        zero: Mask = ~np.asarray(queries.any(axis=1))
        if zero.any():
            limits, scores, rows = zero_vectors.within((limits, scores, rows), zero, self._zeros)
        return limits, _cosines(scores), rows

    def _checked(self, vectors: npt.ArrayLike) -> Floats:
        queries = unit(vectors)
        if queries.shape[1] != self.generation.dim:
            raise WrongUse(f"The index has vectors of {self.generation.dim}, not of {queries.shape[1]} numbers.")
        return queries

    @cached_property
    def _zeros(self) -> Ints:
        """The positions of all live zero vectors, sorted: every vector is read."""
        found = [positions[~vectors.any(axis=1)] for positions, vectors in self.blocks(BLOCK)]
        return np.sort(np.concatenate([np.zeros(0, np.int64), *found]))

    def blocks(self, count: int) -> Iterator[tuple[Ints, Floats]]:
        """Yield positions (m,) and vectors (m, dim) of all live rows, of unit length, ``m`` at most ``count``."""
        for shard in self._shards:
            yield from shard.blocks(count)

    def rows(self, positions: npt.ArrayLike) -> pa.Table:
        """Return what is known of the images at some positions, in that order: path, image_id, content_hash, ..."""
        return rows_at(self._rows, np.asarray(positions, np.int64))

    @property
    def ids(self) -> pa.Table:
        """What is known of all live images, and their positions as ``row``."""
        rows = np.delete(np.arange(self._rows.num_rows), self._removed)
        return self.rows(rows).append_column("row", pa.array(rows))

    @cached_property
    def _rows(self) -> pa.Table:
        names = [name for name in (indexing_generation.IDS, indexing_generation.DELTA_IDS) if name in self._paths]
        return pa.concat_tables([index_files.read_rows(self._paths[name]) for name in names])

    def close(self) -> None:
        """Let go of the files, and delete those that were fetched."""
        self._shards = []
        self._clean()

    def owns(self, scratch: Path) -> Index:
        """Take over a folder of fetched files, which is deleted with the index or at the end of the process."""
        self._clean = weakref.finalize(self, shutil.rmtree, scratch, True)
        return self


def _cosines(scores: Floats) -> Floats:
    """Return scores without what rounding has added to 1, or to 0: a product of zeros may be -0."""
    return np.clip(scores, -1, 1) + np.float32(0)


def open_index(place: str, options: Options | None = None) -> Index:
    """Open the newest generation of an index.

    Raises WrongUse where there is none, JobFailed where a file is gone or not what was written.
    """
    store = open_store(place, options=options)
    return open_generation(store, indexing_generation.current(store))


def open_generation(store: Store, opened: Generation, ours: bool = False) -> Index:
    """Open one generation; raises JobFailed where a file is gone or not what was written."""
    scratch = Path(tempfile.mkdtemp(prefix="cvjobs-index-"))
    try:
        paths = index_files.fetch(store, opened.files, scratch, ours)
        removed = dead_rows(paths)
        live = None
        if len(removed):
            live = np.ones(opened.base + opened.delta, np.bool_)
            live[removed] = False
        shards = [_shard(store, opened, paths, (indexing_generation.BASE, indexing_generation.VECTORS), live)]
        if indexing_generation.DELTA in paths:
            shards.append(
                _shard(store, opened, paths, (indexing_generation.DELTA, indexing_generation.DELTA_VECTORS), live)
            )
        return Index(opened, paths, shards, removed).owns(scratch)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _shard(
    store: Store, opened: Generation, paths: dict[str, Path], names: tuple[str, str], live: Mask | None
) -> IndexShard:
    name, halves = names
    first, count = (0, opened.base) if name == indexing_generation.BASE else (opened.base, opened.delta)
    exact = opened.kind == "exact"
    try:
        if exact:
            index = index_files.read_index(paths[name], faiss.IO_FLAG_MMAP_IFC)
        elif name == indexing_generation.BASE:
            index = index_files.read_lists(paths[name], paths[indexing_generation.LISTS])
        else:
            index = index_files.read_index(paths[name])
    except RuntimeError as error:
        raise DamagedIndex(store, _whole_name(opened, name), "FAISS cannot read it") from error
    found = (index.ntotal, index.d, index.metric_type)
    if found != (count, opened.dim, faiss.METRIC_INNER_PRODUCT):
        reason = f"it holds {found[0]:,} vectors of {found[1]} instead of {count:,}"
        raise DamagedIndex(store, _whole_name(opened, name), reason)
    if exact:
        return Flat(index, first, None if live is None else live[first : first + count])
    vectors = index_files.read_halves(paths.get(halves), opened.dim)
    return Lists(index, first, live, (opened.nprobe, opened.rerank), vectors)


def _whole_name(opened: Generation, name: str) -> str:
    """Return the name of a generation's file with the folder that it is in."""
    file = opened.file(name)
    return file.name if file else name
