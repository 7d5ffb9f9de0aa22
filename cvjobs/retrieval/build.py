"""Building the base of a generation: all vectors of a snapshot, read once or twice as a stream."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

import faiss
import pyarrow as pa

from cvjobs.dataset.layout import KEYS, MEASURED
from cvjobs.dataset.parts import File, write_table
from cvjobs.errors import WrongUse
from cvjobs.retrieval import generation
from cvjobs.retrieval.kinds import Kind
from cvjobs.retrieval.vectors import COLUMNS, Embeddings
from cvjobs.storage import Store

_FIELDS = {field.name: field for field in (*KEYS, *MEASURED)}
SCHEMA = pa.schema([_FIELDS[name] for name in COLUMNS])


@dataclass(frozen=True, kw_only=True)
class Base:
    """What building came to: the files, and the search setting with the recall it reached on ``queries`` queries."""

    files: tuple[File, ...]
    recall: float = 1.0
    queries: int = 0
    nprobe: int = 0
    rerank: int = 0


def build(store: Store, folder: str, embeddings: Embeddings, kind: Kind) -> Base:
    """Build an index of a kind in a new folder of the store."""
    if kind.name != "exact":
        raise WrongUse(f"--kind {kind.name} is not there yet: take --kind exact and more --max-memory.")
    ids = write_table(store, f"{folder}/{generation.IDS}", SCHEMA, embeddings.keys(COLUMNS))
    return Base(files=(_flat(store, f"{folder}/{generation.BASE}", embeddings), ids))


def _flat(store: Store, name: str, embeddings: Embeddings) -> File:
    """Publish FAISS's file of an ``IndexFlatIP``, without ever holding the vectors."""

    def fill(file: BinaryIO) -> None:
        file.write(_header(embeddings.dim, len(embeddings)))
        for _, vectors in embeddings.blocks():
            file.write(vectors.data)

    written = store.write(name, fill)
    return File(name=name, rows=len(embeddings), bytes=written.bytes, sha256=written.sha256)


def _header(dim: int, count: int) -> bytes:
    """Return what FAISS writes before the vectors of an ``IndexFlatIP``: an empty one's file with its counts set."""
    empty: bytes = faiss.serialize_index(faiss.IndexFlatIP(dim)).tobytes()
    # Four letters, d (int32), ntotal (int64), ...; last the number of floats (int64).
    return empty[:8] + struct.pack("<q", count) + empty[16:-8] + struct.pack("<q", count * dim)
