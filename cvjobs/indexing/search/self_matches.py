"""Which neighbours are the query itself: the same file, or, of a file from elsewhere, a copy with the same bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cvjobs.common.paths import image_id, path_bytes

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Origin:
    """Where the paths of a listing start: its ``root``, or for a list (root ``""``) the ``base`` of relative ones.

    ``confined`` is whether only what lies below it may be read.
    """

    root: str
    base: str
    confined: bool = False

    def absolute(self, path: str) -> str:
        """Return the whole name of a listed path."""
        if not self.root and (path.startswith("/") or "://" in path):
            return path
        return f"{(self.root or self.base).rstrip('/')}/{path}"

    def spellings(self, absolute: str) -> list[str]:
        """Return what a listing from here may call a file; empty where it cannot hold it."""
        start = f"{(self.root or self.base).rstrip('/')}/"
        inside = [absolute.removeprefix(start)] if absolute.startswith(start) else []
        return inside if self.root else [absolute, *inside]


class Itself:
    """Knows the files and contents of a collection; made once, asked for every block of queries."""

    def __init__(self, ids: pa.Table, collection: Origin, queries: Origin) -> None:
        self._collection, self._queries = collection, queries
        self._rows = ids["row"].to_numpy().astype(np.int64)
        self._files = _Sorted(_words(ids["image_id"]))
        self._contents = _Sorted(_words(ids["content_hash"]))
        codes = np.full(int(self._rows.max(initial=-1)) + 2, -2, np.int64)
        codes[self._rows] = self._contents.find(_words(ids["content_hash"]))
        self._codes = codes  # by row; the last entry answers for row -1

    def rows(self, paths: pa.ChunkedArray) -> Ints:
        """Return the row of each query that is a file of the collection, else -1."""
        names = paths.to_pylist()
        found = np.full(len(names), -1, np.int64)
        if not len(self._rows):
            return found
        same = bool(self._collection.root) and self._collection == self._queries
        spelt = [[name] if same else self._collection.spellings(self._queries.absolute(name)) for name in names]
        for nth in range(max(map(len, spelt), default=0)):
            some = [i for i, spellings in enumerate(spelt) if len(spellings) > nth and found[i] < 0]
            if some:
                joined = b"".join(image_id(path_bytes(spelt[i][nth])) for i in some)
                at = self._files.find(np.frombuffer(joined, np.uint64).reshape(-1, 2))
                found[some] = np.where(at >= 0, self._rows[at], -1)
        return found

    def contents(self, hashes: pa.ChunkedArray) -> Ints:
        """Return a code for the content of each query: equal to that of ``content_of`` its copies, or -1."""
        return np.where(_known(hashes), self._contents.find(_words(hashes)), -1)

    def content_of(self, rows: Ints) -> Ints:
        """Return the codes of rows of the collection; -2 for row -1."""
        return self._codes[rows]


class _Sorted:
    """128-bit keys, (n, 2) uint64, found by bisection of the first half."""

    def __init__(self, keys: Words) -> None:
        self._order = np.argsort(keys[:, 0], kind="stable")
        self._first, self._second = keys[self._order, 0], keys[self._order, 1]

    def find(self, keys: Words) -> Ints:
        """Return the number of the first key equal to each, -1 where there is none."""
        if not len(self._order):
            return np.full(len(keys), -1, np.int64)
        at = np.minimum(np.searchsorted(self._first, keys[:, 0]), len(self._order) - 1)
        equal = (self._first[at] == keys[:, 0]) & (self._second[at] == keys[:, 1])
        return np.where(equal, self._order[at], -1).astype(np.int64)


def _known(hashes: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return np.asarray(hashes.is_valid().to_numpy())


def _words(hashes: pa.ChunkedArray) -> Words:
    """Return 16-byte values as (n, 2) uint64; those of nulls mean nothing."""
    array = hashes.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.binary(16))
    if not len(array):
        return np.empty((0, 2), np.uint64)
    return np.frombuffer(array.buffers()[1], np.uint64).reshape(-1, 2)[array.offset : array.offset + len(array)]
