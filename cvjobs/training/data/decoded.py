"""Images decoded once, as uint8 in files that every worker maps into its memory; the decoders are the batch jobs'.

They are squares of one size, or whole pictures of their own sizes (``Transform.fit`` "whole").

A chunk of images is a folder whose name is a digest of their paths, versions and preprocessing: it is there whole or
not at all, a run that was killed continues with those that it has, and runs may share them.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvjobs.common import devices, formatting, progress
from cvjobs.common.errors import JobFailed, storage_failure
from cvjobs.common.failures import Failure
from cvjobs.common.fingerprint import digest
from cvjobs.dataset import sealed_table
from cvjobs.dataset.sealed_table import UnreadableTable
from cvjobs.images.dark_images import DarkImages
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.loader import Arrivals, Decoding, Loader, decoders
from cvjobs.images.measured import Measured
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform
from cvjobs.sources.reader import Source
from cvjobs.storage.local_store import LocalStore
from cvjobs.training.data.chunk_pixels import PLACE, SQUARES, SquarePixels, WholePixels, pixels_digest, pixels_file

CHUNK_BYTES = 64 << 20
AHEAD = 2
ROWS = "rows.parquet"
DIGEST = b"pixels_xxh3_128"  # of the file of pixels, in the metadata of the rows
SCHEMA = pa.schema(
    [("path", pa.string()), ("stage", pa.string()), ("code", pa.string()), ("detail", pa.string()),
     ("content_hash", pa.binary(16))]
)  # fmt: skip
WHOLE_SCHEMA = pa.schema([*SCHEMA, *((name, pa.int64()) for name in PLACE)])
PROPORTIONS = 4 / 3  # of most photos
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
        return self.transform.fit == "whole"

    @property
    def schema(self) -> pa.Schema:
        """What is kept of each image beside its pixels."""
        return WHOLE_SCHEMA if self.whole else SCHEMA

    @property
    def each(self) -> int:
        """How many bytes of pixels an image has, of whole pictures about."""
        if self.whole:
            return round(3 * PROPORTIONS * self.transform.resize**2)
        height, width = self.transform.size or (0, 0)
        return 3 * height * width

    @property
    def length(self) -> int:
        """How many images a chunk has."""
        return max(CHUNK_BYTES // self.each, 64)

    def absent(self) -> int:
        """Return how many bytes the chunks take that are not there yet, of whole pictures about."""
        missing = [table for folder, table in self.chunks() if not os.path.exists(os.path.join(folder, ROWS))]
        if self.whole:  # small ones stay small
            sizes = [np.minimum(PACKED * table["bytes"].to_numpy(), self.each).sum() for table in missing]
            return int(sum(sizes))
        count: int = sum(table.num_rows for table in missing)
        return self.each * count

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

    def chunks(self) -> list[tuple[str, pa.Table]]:
        """Return the folder of each chunk, and its rows."""
        how = {"transform": self.transform.record(), "max_pixels": self.max_pixels, "root": self.root}
        found = []
        for start in range(0, self.rows.num_rows, self.length):
            rows = self.rows.slice(start, self.length)
            identity = digest({**how, "paths": rows["path"].to_pylist(), "versions": rows["version"].to_pylist()})
            found.append((os.path.join(self.folder, identity[:32]), rows))
        return found


@dataclass(frozen=True, kw_only=True)
class DecodedImages:
    """What a worker needs of it: the folders of the chunks, their length, and the rows that are images.

    ``places`` int64 (n, 3) are of whole pictures the first byte in the chunk, the height and the width; else None.
    """

    folders: tuple[str, ...]
    length: int
    rows: NDArray[np.int64]
    places: NDArray[np.int64] | None = None


class Pictures:
    """The images of one size that could be decoded, mapped into memory."""

    def __init__(self, decoded: DecodedImages) -> None:
        self._maps = [np.load(os.path.join(folder, SQUARES), mmap_mode="r") for folder in decoded.folders]
        self._length, self._rows = decoded.length, decoded.rows
        self.shape: tuple[int, ...] = self._maps[0].shape[1:]

    def __len__(self) -> int:
        return len(self._rows)

    def gather(self, which: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return some images by their number, uint8 (n, height, width, 3)."""
        out = np.empty((len(which), *self.shape), np.uint8)
        for at, row in enumerate(self._rows[which].tolist()):
            out[at] = self._maps[row // self._length][row % self._length]
        return out

    @property
    def nbytes(self) -> int:
        """The bytes of all pixels."""
        return len(self) * int(np.prod(self.shape))

    def sizes(self, which: NDArray[np.int64]) -> tuple[int, int]:  # noqa: ARG002
        """Return the height and the width of every image."""
        return self.shape[0], self.shape[1]

    def some(self, which: NDArray[np.int64]) -> Tensor:
        """Return some images by their number, uint8 (n, 3, height, width)."""
        return torch.from_numpy(self.gather(which)).permute(0, 3, 1, 2)


def decode(
    request: DecodeRequest, source: Source, decoder_server: DecoderServer, tell: Callable[[int], None]
) -> tuple[DecodedImages, pa.Table]:
    """Decode what no chunk has yet; return where it is, and a table (``SCHEMA``) with a row for each image.

    ``code`` is null for an image that could be decoded. ``tell`` is told how many images are done.

    Raises:
        JobFailed: there is no room, or decoding cannot go on at all.
    """
    chunks = request.chunks()
    try:
        os.makedirs(request.folder, exist_ok=True)
        there = set(os.listdir(request.folder))
        tables = {folder: request.decoded(folder, rows) for folder, rows in chunks}
        if missing := [(folder, rows) for folder, rows in chunks if tables[folder] is None]:
            for folder, _ in missing:
                if os.path.basename(folder) in there:  # and damaged
                    shutil.rmtree(folder, ignore_errors=True)
            _fill(request, missing, source, decoder_server, tell)
            tables |= {folder: request.decoded(folder, rows) for folder, rows in missing}
        if any(table is None for table in tables.values()):
            raise FileNotFoundError(errno.ENOENT, "another command deleted what was decoded", request.folder)
    except OSError as error:
        begun = any(os.path.exists(os.path.join(folder, ROWS)) for folder, _ in chunks)
        raise storage_failure(error, request.folder, "--cache", begun=begun) from error
    rows = pa.concat_tables([tables[folder] for folder, _ in chunks])
    good = np.flatnonzero(np.asarray(rows["code"].is_null()))
    folders = tuple(folder for folder, _ in chunks)
    places = np.stack([rows[name].to_numpy()[good] for name in PLACE], 1).astype(np.int64) if request.whole else None
    return DecodedImages(folders=folders, length=request.length, rows=good, places=places), rows.select(SCHEMA.names)


def _fill(
    request: DecodeRequest,
    missing: Sequence[tuple[str, pa.Table]],
    source: Source,
    decoder_server: DecoderServer,
    tell: Callable[[int], None],
) -> None:
    tray = _Tray(tell)
    how = Decoding(transform=request.transform, max_pixels=request.max_pixels)
    with closing(Loader(source, how, tray, decoders(devices.cpus()), decoder_server)) as loader:
        sheets: list[_Sheet] = []
        try:
            waiting = iter(missing)
            while True:
                while len(sheets) < AHEAD and (following := next(waiting, None)):
                    sheets.append(_Sheet(request, *following))
                    loader.ask(sheets[-1].rows, sheets[-1].tags())
                if not sheets:
                    break
                tray.full(sheets[0])
                sheets.pop(0).publish()
            if tray.dark.count:
                progress.tell(str(tray.dark))
        finally:
            for sheet in sheets:
                sheet.drop()


@dataclass
class _Sheet:
    """A chunk that is being filled, in a folder beside its own."""

    request: DecodeRequest
    folder: str
    rows: pa.Table
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = count = self.rows.num_rows
        self._answers: list[dict[str, Any] | None] = [None] * count
        self._temporary = Path(f"{self.folder}.{secrets.token_hex(6)}")
        self._temporary.mkdir()
        try:
            size = self.request.transform.size
            self._pixels = SquarePixels(self._temporary, count, size) if size else WholePixels(self._temporary)
        except BaseException:
            self.drop()
            raise

    def tags(self) -> list[tuple[_Sheet, int]]:
        """Return the name that each row has for the loader."""
        return [(self, at) for at in range(self.rows.num_rows)]

    def put(self, at: int, pixels: Pixels | None, answer: dict[str, Any]) -> None:
        self._answers[at] = answer if pixels is None else answer | self._pixels.put(at, pixels)

    def publish(self) -> None:
        """Make the chunk durable under its own name."""
        self._pixels.end()
        each = zip(self.rows["path"].to_pylist(), self._answers, strict=True)
        table = pa.Table.from_pylist([{"path": path, **(answer or {})} for path, answer in each], self.request.schema)
        digest = pixels_digest(self._temporary).encode()
        with (self._temporary / ROWS).open("wb") as file:
            sealed_table.dump(file, table.replace_schema_metadata({DIGEST: digest}))
        for name in (self._pixels.name, ROWS):
            descriptor = os.open(self._temporary / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        try:
            self._temporary.rename(self.folder)
        except OSError:
            self.drop()
            if not os.path.exists(os.path.join(self.folder, ROWS)):  # else another run was faster
                raise

    def drop(self) -> None:
        """Give the chunk up."""
        shutil.rmtree(self._temporary, ignore_errors=True)


def examined(folder: Path) -> str:
    """Return what is wrong with a chunk, all of which is read; empty where nothing is."""
    try:
        table = sealed_table.read(LocalStore(folder), ROWS)
        if pixels_file(folder).name == SQUARES:
            pixels = np.load(folder / SQUARES, mmap_mode="r")
            if len(pixels) != table.num_rows:
                return f"it has {len(pixels):,} images and {table.num_rows:,} rows"
        said = (table.schema.metadata or {}).get(DIGEST)  # earlier versions said nothing
        return "" if said in (None, pixels_digest(folder).encode()) else "the pixels are not what was written"
    except (UnreadableTable, OSError, ValueError, EOFError) as error:
        return str(error).partition("\n")[0][:200]


def _area(table: pa.Table) -> pa.ChunkedArray:
    """Return the pixels of each whole picture, null of one that failed."""
    return pc.multiply(table["height"], table["width"])


class _Tray(Arrivals):
    """Where decoders deliver; several of them at once. A tag is a sheet and the place in it."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        super().__init__()
        self._tell, self._done = tell, 0
        self.dark = DarkImages()

    def decoded(self, tag: tuple[_Sheet, int], measured: Measured, pixels: Pixels) -> None:
        """See ``decode_worker.Outlet``."""
        tag[0].put(tag[1], pixels, {"content_hash": measured.content_hash})
        if measured.unsaid_bits:
            with self.changed:
                self.dark.add(measured.unsaid_bits, tag[0].rows["path"][tag[1]].as_py())
        self._count(tag[0])

    def failed(self, tag: tuple[_Sheet, int], failure: Failure) -> None:
        """See ``decode_worker.Outlet``."""
        tag[0].put(tag[1], None, {"stage": failure.stage, "code": failure.code, "detail": failure.detail})
        self._count(tag[0])

    def _count(self, sheet: _Sheet) -> None:
        with self.changed:
            sheet.left -= 1
            self._done += 1
            self.changed.notify_all()

    def full(self, sheet: _Sheet) -> None:
        """Wait until every image of a sheet has an answer; raises the error that ended a decoder."""
        while True:
            full = self.wait(lambda: not sheet.left, 0.5)
            self._tell(self._done)
            if self.error is not None:
                raise self.error
            if full:
                return


def check_room(requests: Sequence[DecodeRequest], folder: str) -> None:
    """Raise JobFailed, before anything is decoded, where the disk has no room for what no chunk has yet."""
    place = Path(folder)
    while not place.exists():
        place = place.parent
    wanted = sum(request.absent() for request in requests)
    free = shutil.disk_usage(place).free
    if wanted > free:
        raise JobFailed(
            f"The decoded images need {formatting.size(wanted)} in {folder}, where {formatting.size(free)} are free: "
            "make room, name a larger disk with --cache, or lower --img-size."
        )


def clear(folder: str) -> None:
    """Delete a cache that no other run needs."""
    shutil.rmtree(folder, ignore_errors=True)
