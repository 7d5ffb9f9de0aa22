"""The embeddings that an index is made of: their keys, and their vectors streamed in blocks by a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cvjobs.common.errors import WrongUse
from cvjobs.dataset.snapshot_reader import EMBED, SnapshotReader, open_newest
from cvjobs.prediction.tasks.embed import COLUMN
from cvjobs.storage.store import Store

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
T = TypeVar("T")

COLUMNS = ["path", "image_id", "content_hash", "bytes", "modified", "width", "height", "version"]
AHEAD = 2


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """The results of an ``embed`` output as of one snapshot; a row's position counts through its files in order."""

    reader: SnapshotReader
    dim: int

    def __len__(self) -> int:
        return len(self.reader)

    def keys(self, columns: list[str]) -> Iterator[pa.Table]:
        """Yield these columns of all rows, file by file, one file in memory at a time."""
        return self.reader.tables(columns, most=1)

    def blocks(self, wanted: Ints | None = None) -> Iterator[tuple[Ints, Floats]]:
        """Yield positions (m,) and their vectors (m, dim) of unit length; a zero vector stays zero.

        ``wanted`` (sorted) leaves out other rows, and row groups without any of them are not read.
        """
        return ahead(self._blocks(wanted))

    def _blocks(self, wanted: Ints | None) -> Iterator[tuple[Ints, Floats]]:
        for first, table in self.reader.groups([COLUMN], wanted):
            positions = np.arange(first, first + table.num_rows)
            vectors = matrix(table[COLUMN], self.dim)
            if wanted is not None:
                here = wanted[np.searchsorted(wanted, positions[0]) : np.searchsorted(wanted, positions[-1] + 1)]
                if len(here) < len(positions):
                    positions, vectors = here, vectors[here - positions[0]]
            yield positions, unit(vectors)


def open_embeddings(store: Store, dim: int = 0) -> Embeddings:
    """Open the newest snapshot of an ``embed`` output; raises WrongUse where there is none.

    Where it holds no vector they would have ``dim`` numbers, as those that were there before; raises WrongUse if none
    were.
    """
    reader = open_newest(store, "embeddings", "`cvjobs embed`")
    if not len(reader):
        if not dim or reader.task != EMBED:
            raise no_vector(store)
        return Embeddings(reader=reader, dim=dim)
    schema = reader.schema
    kind: Any = schema.field(COLUMN).type if COLUMN in schema.names else pa.null()
    if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
        raise WrongUse(f"{store.place} holds no embeddings (column '{COLUMN}'): name the -o folder of `cvjobs embed`.")
    return Embeddings(reader=reader, dim=kind.list_size)


def no_vector(store: Store) -> WrongUse:
    """Return the error of an output that has nothing to build an index of."""
    return WrongUse(f"{store.place} holds no vector: embed images into it first.")


def matrix(column: pa.ChunkedArray, dim: int) -> Floats:
    """Return a column of vectors as an array (rows, dim), without a copy where it is in one piece."""
    pieces = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim) for chunk in column.chunks]
    return pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros((0, dim), np.float32), *pieces])


def unit(vectors: npt.ArrayLike) -> Floats:
    """Return vectors (n, dim) of length 1, as float32; a zero vector stays zero."""
    given = np.ascontiguousarray(vectors, np.float32)
    squares = np.einsum("ij,ij->i", given, given)[:, None]
    if given.size and not (squares.min() > 1e-30 and squares.max() < 1e30):
        # Squares leave the range of float32 before the values do.
        largest = np.abs(given).max(axis=1, keepdims=True)
        given = np.asarray(given / np.where(largest > 0, largest, 1), np.float32)
        squares = np.einsum("ij,ij->i", given, given)[:, None]
    return np.asarray(given / np.sqrt(np.where(squares > 0, squares, np.float32(1))), np.float32)


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield items that a thread makes ahead of their use; what fails there is raised here."""
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(AHEAD)
    ended = threading.Event()

    def put(item: T | None, error: BaseException | None = None) -> bool:
        while not ended.is_set():
            try:
                ready.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            if all(put(item) for item in items):
                put(None, StopIteration())
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are used
            put(None, error)

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        ended.set()
        thread.join()
