"""What is to be decoded for a training, in chunks, and where it then is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cvjobs.common.fingerprint import digest
from cvjobs.dataset import sealed_table
from cvjobs.dataset.sealed_table import UnreadableTable
from cvjobs.images.transform import Transform
from cvjobs.storage.local_store import LocalStore
from cvjobs.training.data.chunk_pixels import PLACE, ROWS, SQUARES, pixels_file

CHUNK_BYTES = 64 << 20
SCHEMA = pa.schema(
    [("path", pa.string()), ("stage", pa.string()), ("code", pa.string()), ("detail", pa.string()),
     ("content_hash", pa.binary(16))]
)  # fmt: skip
WHOLE_SCHEMA = pa.schema([*SCHEMA, *((name, pa.int64()) for name in PLACE)])
PROPORTIONS = 4 / 3  # of most photos
MOST = 256  # whole pictures of a chunk, for training waits for a whole one
NATIVE = 1024  # pixels of the shorter side of pictures that are kept as they are, about
PACKED = 24  # bytes of pixels that a byte of a file stands for, seldom more


@dataclass(frozen=True, kw_only=True)
class DecodeRequest:
    """What is to be decoded: key rows, how, and where the chunks are kept."""

    rows: pa.Table
    root: str
    transform: Transform
    max_pixels: int
    folder: str

    @property
    def whole(self) -> bool:
        """Whether pictures keep a size of their own."""
        return self.transform.fit in ("whole", "native")

    @property
    def schema(self) -> pa.Schema:
        """What is kept of each image beside its pixels."""
        return WHOLE_SCHEMA if self.whole else SCHEMA

    @property
    def each(self) -> int:
        """How many bytes of pixels an image has, of whole pictures about."""
        if self.whole:
            return round(3 * PROPORTIONS * (self.transform.resize or NATIVE) ** 2)
        height, width = self.transform.size or (0, 0)
        return 3 * height * width

    @property
    def length(self) -> int:
        """How many images a chunk has."""
        found = max(CHUNK_BYTES // self.each, 64)
        return min(found, MOST) if self.whole else found

    def needed(self) -> int:
        """Return how many bytes all chunks take, of whole pictures about."""
        return self._bytes(self.rows)

    def absent(self) -> int:
        """Return how many bytes the chunks take that are not there yet, of whole pictures about."""
        missing = (table for folder, table in self.chunks() if not os.path.exists(os.path.join(folder, ROWS)))
        return sum(map(self._bytes, missing))

    def _bytes(self, rows: pa.Table) -> int:
        if self.whole:  # small ones stay small
            return int(np.minimum(PACKED * rows["bytes"].to_numpy(), self.each).sum())
        return self.each * int(rows.num_rows)

    def decoded(self, folder: str, rows: pa.Table) -> pa.Table | None:
        """Return what became of each image of a chunk (``schema``); None where it is not there, or damaged."""
        try:
            table = sealed_table.read(LocalStore(folder), ROWS, self.schema)
            whole = self._whole(folder, table)
        except (UnreadableTable, FileNotFoundError, ValueError, EOFError):
            return None
        return table if whole and table["path"].equals(rows["path"]) else None

    def _whole(self, folder: str, table: pa.Table) -> bool:
        """Return whether a chunk has all pixels that its rows tell of."""
        if self.whole:
            pixels: int = pc.sum(_area(table)).as_py() or 0
            return pixels_file(Path(folder)).stat().st_size == 3 * pixels
        squares = np.load(os.path.join(folder, SQUARES), mmap_mode="r")
        shape = (table.num_rows, *(self.transform.size or ()), 3)
        return bool(squares.shape == shape and squares.dtype == np.uint8)

    def listed(self) -> DecodedImages:
        """Return where all of the images will be."""
        folders = tuple(folder for folder, _ in self.chunks())
        return DecodedImages(
            folders=folders, length=self.length, rows=np.arange(self.rows.num_rows), whole=self.whole, pending=True
        )

    def chunks(self) -> list[tuple[str, pa.Table]]:
        """Return the folder of each chunk, and its rows."""
        return [
            (os.path.join(self.folder, name), self.rows.slice(number * self.length, self.length))
            for number, name in enumerate(self._names)
        ]

    @cached_property
    def _names(self) -> tuple[str, ...]:
        how = {"transform": self.transform.record(), "max_pixels": self.max_pixels, "root": self.root}
        found = []
        for start in range(0, self.rows.num_rows, self.length):
            rows = self.rows.slice(start, self.length)
            identity = digest({**how, "paths": rows["path"].to_pylist(), "versions": rows["version"].to_pylist()})
            found.append(identity[:32])
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class DecodedImages:
    """What a worker needs of it: the folders of the chunks, their length, and the rows that are images.

    ``whole`` is whether these are whole pictures. While some chunks may not be there yet (``pending``), and of whole
    pictures always, the rows are those of all listed images, of which some may fail. In the folder ``passing``, where
    there is one, are chunks that stay for some steps alone.
    """

    folders: tuple[str, ...]
    length: int
    rows: NDArray[np.int64]
    whole: bool = False
    pending: bool = False
    passing: str = ""

    def places(self, chunk: int) -> list[str]:
        """Return the folders in which a chunk may be."""
        folder = self.folders[chunk]
        return [folder, os.path.join(self.passing, os.path.basename(folder))] if self.passing else [folder]


def _area(table: pa.Table) -> pa.ChunkedArray:
    """Return the pixels of each whole picture, null of one that failed."""
    return pc.multiply(table["height"], table["width"])
