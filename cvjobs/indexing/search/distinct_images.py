"""The images of an index, with those joined that are equal in their bytes or vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from cvjobs.common import rules
from cvjobs.indexing.search.components import Components, Ints

if TYPE_CHECKING:
    from cvjobs.indexing.search.opened_index import Index

Mask = npt.NDArray[np.bool_]

BLOCK = 4096  # vectors that are read at once


class DistinctImages:
    """The n images of an index by number: of any group, the one to keep has the lowest.

    ``ids`` are their rows, ``number`` (by position in the index) is -1 for what was removed. ``content`` is the first
    number with the same bytes, -1 where the bytes are unknown. ``directed`` are those whose vector is not zero.
    ``equal`` joins the same bytes and the same vectors; ``asked`` are the first of each such group that are directed:
    thousands of equal vectors would otherwise fill each other's neighbourhoods.
    """

    def __init__(self, index: Index) -> None:
        self.ids = _best_first(index.ids)
        rows = self.ids["row"].to_numpy()
        self.number: Ints = np.full(int(rows.max(initial=-1)) + 1, -1, np.int64)
        self.number[rows] = np.arange(len(rows))
        self.content = _codes(self.ids["content_hash"])
        known = np.flatnonzero(self.content >= 0)
        self.equal = Components(len(rows))
        self.equal.unite(known, self.content[known])
        self.directed, same = _distinct(index, self.number)
        self.equal.unite(np.arange(len(rows)), same)
        self.asked: Mask = self.directed & (self.equal.all() == np.arange(len(rows)))

    def __len__(self) -> int:
        return len(self.content)


def _best_first(ids: pa.Table) -> pa.Table:
    """Return the rows so that of any group the one to keep has the lowest number."""
    pixels = pc.multiply(ids["width"].cast(pa.int64()), ids["height"].cast(pa.int64()))
    keys = pa.table({"pixels": pixels, "bytes": ids["bytes"], "path": ids["path"]})
    order = [("pixels", "descending"), ("bytes", "descending"), ("path", "ascending")]
    return ids.take(pc.sort_indices(keys, sort_keys=order)).combine_chunks()


def _codes(hashes: pa.ChunkedArray) -> Ints:
    """Return for each hash the number of the first row that has it, -1 for a null."""
    encoded = hashes.combine_chunks().dictionary_encode().indices
    codes = encoded.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    values, first = np.unique(codes, return_index=True)
    firsts = first[np.searchsorted(values, codes)]
    return np.where(codes < 0, -1, firsts).astype(np.int64)


def _distinct(index: Index, number: Ints) -> tuple[Mask, Ints]:
    """Return which rows have a direction (a zero vector has none), and for each the first row of the same vector.

    Zero vectors are equal, by all rules but the first: black images are duplicates of each other.
    """
    size = int((number >= 0).sum())
    # Added to 0, -0 is 0.
    hashes = np.empty(size, "V16")
    directed = np.zeros(size, np.bool_)
    for position, vectors in index.blocks(BLOCK):
        mine = number[position]
        hashes[mine] = np.frombuffer(b"".join(map(xxhash.xxh3_128_digest, vectors + np.float32(0))), "V16")
        directed[mine] = vectors.any(axis=1)
    same = _codes(
        pa.chunked_array([pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), size, [None, pa.py_buffer(hashes)])])
    )
    return directed, np.where(directed, same, np.arange(size)) if index.scores == rules.FIRST else same
