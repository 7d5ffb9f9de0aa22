"""Embeddings outputs of made-up vectors, written through the functions that ``embed`` writes its own with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from cvjobs.dataset import parts, snapshot, versions
from cvjobs.dataset import schema as dataset_schema
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.storage.store import open_store

Floats = npt.NDArray[np.float32]


def clustered(count: int, dim: int, clusters: int = 50, seed: int = 0) -> Floats:
    """Vectors around random centres, none of unit length."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(clusters, dim))
    points = centres[random.integers(0, clusters, count)] + 0.4 * random.normal(size=(count, dim))
    return np.asarray(points * random.uniform(0.5, 2.0, (count, 1)), np.float32)


def exact(stored: Floats, queries: Floats, k: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The cosines (n, k) and rows of the nearest, best first, in float64."""

    def unit(x: Floats) -> npt.NDArray[np.float64]:
        lengths = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
        return np.asarray(x / np.where(lengths > 0, lengths, 1))

    cosines = unit(queries) @ unit(stored).T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(cosines, order, 1), order


@dataclass
class Fake:
    """An embeddings folder whose images, by name, have the vectors that they are given."""

    out: Path
    dim: int
    fingerprint: str = "f" * 64
    facts: dict[str, str] = field(default_factory=lambda: {"model": "toy"})
    rows_a_file: int = 1000
    vectors: dict[str, Floats] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)  # of images, where these are files

    def put(self, vectors: Mapping[str, Floats], gone: tuple[str, ...] = ()) -> None:
        """Publish a snapshot with some images new or changed and some gone."""
        self.vectors = {name: v for name, v in {**self.vectors, **vectors}.items() if name not in gone}
        self.publish()

    def publish(self) -> None:
        """Publish a snapshot of all vectors."""
        store = open_store(str(self.out), "r000001")
        names = list(self.vectors)
        store.create(
            dataset_schema.FORMAT, dataset_schema.pack({"format": "cvjobs", "version": 1, "source": "/photos"})
        )
        number = versions.following(store)
        author = parts.Author(run="r000001-00000000", epoch=0, fingerprint=self.fingerprint, listed=0)
        files = []
        for start in range(0, len(names), self.rows_a_file):
            part = parts.commit(store, author, self.table(names[start : start + self.rows_a_file]), None)
            assert part.results is not None
            files.append(part.results)
        new = Snapshot(
            version=number,
            run=author.run,
            fingerprint=self.fingerprint,
            facts=self.facts,
            source="/photos",
            root="/photos",
            wanted=len(names),
            created=snapshot.now(),
            results=tuple(files),
        )
        assert snapshot.publish(store, new)

    def table(self, names: list[str]) -> pa.Table:
        """Rows as ``embed`` writes them."""
        count = len(names)
        vectors = np.stack([self.vectors[name] for name in names])
        embedding = pa.field("embedding", pa.list_(pa.field("item", pa.float32()), self.dim))
        schema = dataset_schema.result_schema(pa.schema([]), pa.schema([embedding]))
        ones = pa.array(np.ones(count, np.int32))
        columns = {
            "path": pa.array(names),
            "image_id": pa.array(
                [hashlib.blake2b(n.encode(), digest_size=16).digest() for n in names], dataset_schema.ID
            ),
            "content_hash": pa.array([self._hash(name) for name in names], dataset_schema.ID),
            "bytes": pa.array(np.full(count, 100)),
            "modified": pa.array(np.zeros(count, np.int64), pa.int64()).cast(dataset_schema.MODIFIED),
            "version": pa.array(np.ones(count, np.uint64)),
            "width": ones,
            "height": ones,
            "frames": ones,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), self.dim),
        }
        return pa.table([columns[name] for name in schema.names], schema=schema)

    def _hash(self, name: str) -> bytes:
        if name in self.contents:
            return xxhash.xxh3_128_digest(self.contents[name])
        return hashlib.md5(self.vectors[name].tobytes()).digest()


def named(vectors: Floats, first: int = 0) -> dict[str, Floats]:
    """Names for vectors."""
    return {f"image{first + number:06}.jpg": vector for number, vector in enumerate(vectors)}
