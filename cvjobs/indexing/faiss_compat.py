"""What FAISS keeps to itself: the header of a flat index's file, and the lists that an index has in another file."""

from __future__ import annotations

import struct
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

VERSIONS = {"faiss": ("1.12", "1.15")}


def flat_header(dim: int, count: int) -> bytes:
    """Return what FAISS writes before the vectors (float32) of an ``IndexFlatIP``: an empty one's, its counts set."""
    empty: bytes = faiss.serialize_index(faiss.IndexFlatIP(dim)).tobytes()
    # Four letters, d (int32), ntotal (int64), ...; last the number of floats (int64).
    return empty[:8] + struct.pack("<q", count) + empty[16:-8] + struct.pack("<q", count * dim)


def name_lists(trained: Any, counts: npt.NDArray[np.int64], name: str, size: int) -> None:
    """Make an index that has no vectors refer to those in a file of lists, of ``size`` bytes.

    The file has each list's codes and then its ids (int64), list after list; ``counts`` are their lengths.
    """
    ivf = faiss.extract_index_ivf(trained)
    invlists = faiss.OnDiskInvertedLists(ivf.nlist, ivf.code_size, name)
    ends = np.cumsum(counts * (ivf.code_size + 8))
    # A list is three uint64: its length, its capacity and where it begins.
    table = np.ascontiguousarray(np.stack([counts, counts, ends - counts * (ivf.code_size + 8)], axis=1), np.uint64)
    faiss.memcpy(invlists.lists.data(), faiss.swig_ptr(table), table.nbytes)
    invlists.totsize = size
    invlists.read_only = True
    _give(ivf, invlists)
    ivf.ntotal = trained.ntotal = int(counts.sum())


def map_lists(index: Any, file: str) -> None:
    """Map the file of lists of an index that was read without them (``IO_FLAG_SKIP_IVF_DATA``)."""
    mapped = faiss.downcast_InvertedLists(faiss.extract_index_ivf(index).invlists)
    mapped.filename = file
    mapped.do_mmap()
    mapped.prefetch_nthread = 0  # its threads would touch all that a search touches anyway


def empty_lists(index: Any) -> None:
    """Give an index that was read without its lists empty ones, in memory."""
    ivf = faiss.extract_index_ivf(index)
    _give(ivf, faiss.ArrayInvertedLists(ivf.nlist, ivf.code_size))
    ivf.ntotal = index.ntotal = 0


def is_same(one: Any, other: Any) -> bool:
    """Whether two Python objects stand for the same object of FAISS."""
    return bool(one.this == other.this)


def _give(ivf: Any, invlists: Any) -> None:
    """Replace the lists of an index by others, which it owns from now on."""
    ivf.replace_invlists(invlists, True)
    invlists.this.disown()
