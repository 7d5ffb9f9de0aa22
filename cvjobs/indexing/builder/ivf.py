"""Inverted lists larger than memory: ranges of rows coded one by one, then merged in one sequential pass."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, BinaryIO

import faiss
import numpy as np

from cvjobs.dataset.parts import File
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.dataset.snapshot_reader import SnapshotReader
from cvjobs.indexing import faiss_compat
from cvjobs.indexing.builder.ivf_training import encode
from cvjobs.indexing.builder.recall import Nearest
from cvjobs.indexing.vectors import Embeddings, Floats, Ints
from cvjobs.storage.store import Store, open_store

QUERIES, TRAINED = "queries.npy", "trained.faiss"
WORK = "work"


@dataclass(frozen=True, kw_only=True)
class Addition:
    """A range of rows to be coded, as a worker on any machine needs to know it: everything else is in files.

    ``place`` of the embeddings, ``out`` and ``folder`` of the index; rows ``start`` up to ``end``.
    """

    place: str
    snapshot: Snapshot
    dim: int
    out: str
    folder: str
    start: int
    end: int
    options: Mapping[str, str] = field(default_factory=dict)
    writer: str = ""

    @property
    def name(self) -> str:
        """The file of lists that this becomes; the nearest of the queries among its rows are beside it."""
        return f"{self.folder}/{WORK}/{self.start:012d}"


def ranges(count: int, most: int, workers: int) -> list[tuple[int, int]]:
    """Split rows evenly into ranges of at most ``most``, a multiple of the workers in number."""
    pieces = -(-count // max(most, 1))
    pieces = min(-(-pieces // workers) * workers, count)
    bounds = np.linspace(0, count, pieces + 1).astype(int)
    return [(int(a), int(b)) for a, b in pairwise(bounds)]


def prepare(store: Store, folder: str, trained: Any, queries: Floats) -> None:
    """Write what every range needs: the trained index and the queries."""
    store.write_bytes(f"{folder}/{WORK}/{TRAINED}", faiss.serialize_index(trained).tobytes())
    store.write(f"{folder}/{WORK}/{QUERIES}", lambda file: np.save(file, queries))


def add(task: Addition) -> None:
    """Code a range of rows and write its lists, and which of its rows are nearest to the queries."""
    store = open_store(task.out, task.writer, task.options)
    reader = SnapshotReader(store=open_store(task.place, options=task.options), snapshot=task.snapshot)
    embeddings = Embeddings(reader=reader, dim=task.dim)
    index = faiss.deserialize_index(np.frombuffer(store.read(f"{task.folder}/{WORK}/{TRAINED}"), np.uint8))
    nearest = Nearest(np.load(io.BytesIO(store.read(f"{task.folder}/{WORK}/{QUERIES}"))))
    ivf = faiss.extract_index_ivf(index)
    count = task.end - task.start
    lists, codes = np.empty(count, np.int64), np.empty((count, ivf.code_size), np.uint8)
    row = 0
    for positions, vectors in embeddings.blocks(np.arange(task.start, task.end)):
        block = slice(row, row + len(positions))
        lists[block], codes[block] = encode(index, vectors)
        nearest.see(positions, vectors)
        row += len(positions)
    order = np.argsort(lists, kind="stable")
    counts = np.bincount(lists, minlength=ivf.nlist)

    def fill(file: BinaryIO) -> None:
        file.write(counts.astype(np.int64).data)
        file.write((order + task.start).data)
        for start in range(0, count, 1 << 16):
            file.write(codes[order[start : start + (1 << 16)]].data)

    store.write(f"{task.name}.lists", fill)
    store.write(f"{task.name}.npy", nearest.save)


def nearest_of(store: Store, tasks: list[Addition], queries: Floats) -> Nearest:
    """Return the nearest of the queries among all rows."""
    nearest = Nearest(queries)
    for task in tasks:
        nearest.load(io.BytesIO(store.read(f"{task.name}.npy")))
    return nearest


def merge(store: Store, name: str, tasks: list[Addition], trained: Any) -> File:
    """Write the lists of all ranges into one file, as FAISS maps it, and let the trained index name them.

    A list's codes come first, then its ids; each range is read from its start to its end.
    """
    ivf = faiss.extract_index_ivf(trained)
    size, lists = ivf.code_size, ivf.nlist
    counts = np.stack([_counts(store, task, lists) for task in tasks])
    total = counts.sum(axis=0)

    def fill(file: BinaryIO) -> None:
        codes: list[BinaryIO] = []
        ids: list[BinaryIO] = []
        try:
            for task, own in zip(tasks, counts, strict=True):
                for handles, offset in ((ids, 8 * lists), (codes, 8 * lists + 8 * int(own.sum()))):
                    handle = store.open(f"{task.name}.lists")
                    handles.append(handle)
                    handle.seek(offset)
            for number in range(lists):
                for handle, own in zip(codes, counts, strict=True):
                    file.write(handle.read(int(own[number]) * size))
                for handle, own in zip(ids, counts, strict=True):
                    file.write(handle.read(int(own[number]) * 8))
        finally:
            for handle in (*codes, *ids):
                handle.close()

    written = store.write(name, fill)
    rows = int(total.sum())
    faiss_compat.name_lists(trained, total, name.rpartition("/")[2], written.bytes)
    return File(name=name, rows=rows, bytes=written.bytes, sha256=written.sha256)


def _counts(store: Store, task: Addition, lists: int) -> Ints:
    with store.open(f"{task.name}.lists") as file:
        return np.frombuffer(file.read(8 * lists), np.int64)
