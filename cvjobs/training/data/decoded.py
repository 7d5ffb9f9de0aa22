"""Images decoded once, as uint8 in files that every worker maps into its memory; the decoders are the batch jobs'.

A chunk of images is a folder whose name is a digest of their paths, versions and preprocessing: it is there whole or
not at all, a run that was killed continues with those that it has, and runs may share them.
"""

from __future__ import annotations

import errno
import math
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
import xxhash
from numpy.typing import NDArray

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

CHUNK_BYTES = 64 << 20
AHEAD = 2
PIXELS, ROWS = "pixels.npy", "rows.parquet"
DIGEST = b"pixels_xxh3_128"  # of the file of pixels, in the metadata of the rows
SCHEMA = pa.schema(
    [("path", pa.string()), ("stage", pa.string()), ("code", pa.string()), ("detail", pa.string()),
     ("content_hash", pa.binary(16))]
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DecodeRequest:
    """What is to be decoded: key rows, how, and where the chunks are kept."""

    rows: pa.Table
    root: str
    transform: Transform
    max_pixels: int
    folder: str

    @property
    def length(self) -> int:
        """How many images a chunk has."""
        height, width = self.transform.size or (0, 0)
        return max(CHUNK_BYTES // (3 * height * width), 64)

    def absent(self) -> int:
        """Return how many bytes the chunks take that are not there yet."""
        missing = (table for folder, table in self.chunks() if not os.path.exists(os.path.join(folder, ROWS)))
        height, width = self.transform.size or (0, 0)
        count: int = sum(table.num_rows for table in missing)
        return count * 3 * height * width

    def decoded(self, folder: str, rows: pa.Table) -> pa.Table | None:
        """Return what became of each image of a chunk (``SCHEMA``); None where it is not there, or damaged."""
        height, width = self.transform.size or (0, 0)
        try:
            table = sealed_table.read(LocalStore(folder), ROWS, SCHEMA)
            pixels = np.load(os.path.join(folder, PIXELS), mmap_mode="r")
        except (UnreadableTable, FileNotFoundError, ValueError, EOFError):
            return None
        whole = pixels.shape == (rows.num_rows, height, width, 3) and pixels.dtype == np.uint8
        return table if whole and table["path"].equals(rows["path"]) else None

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
    """What a worker needs of it: the folders of the chunks, their length, and the rows that are images."""

    folders: tuple[str, ...]
    length: int
    rows: NDArray[np.int64]


class Pictures:
    """The images that could be decoded, mapped into memory."""

    def __init__(self, decoded: DecodedImages) -> None:
        self._maps = [np.load(os.path.join(folder, PIXELS), mmap_mode="r") for folder in decoded.folders]
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
    return DecodedImages(folders=tuple(folder for folder, _ in chunks), length=request.length, rows=good), rows


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
                    sheets.append(_Sheet(*following, request.transform.size or (0, 0)))
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

    folder: str
    rows: pa.Table
    size: tuple[int, int]
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = count = self.rows.num_rows
        self._answers: list[dict[str, Any] | None] = [None] * count
        self._temporary = Path(f"{self.folder}.{secrets.token_hex(6)}")
        self._temporary.mkdir()
        try:
            self._pixels = _mapped(self._temporary / PIXELS, (count, *self.size, 3))
        except BaseException:
            self.drop()
            raise

    def tags(self) -> list[tuple[_Sheet, int]]:
        """Return the name that each row has for the loader."""
        return [(self, at) for at in range(self.rows.num_rows)]

    def put(self, at: int, pixels: Pixels | None, answer: dict[str, Any]) -> None:
        if pixels is not None:
            self._pixels[at] = pixels
        self._answers[at] = answer

    def publish(self) -> None:
        """Make the chunk durable under its own name."""
        self._pixels.flush()
        each = zip(self.rows["path"].to_pylist(), self._answers, strict=True)
        table = pa.Table.from_pylist([{"path": path, **(answer or {})} for path, answer in each], SCHEMA)
        digest = pixels_digest(self._temporary).encode()
        with (self._temporary / ROWS).open("wb") as file:
            sealed_table.dump(file, table.replace_schema_metadata({DIGEST: digest}))
        for name in (PIXELS, ROWS):
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


def pixels_digest(folder: Path) -> str:
    """Return the digest of a chunk's file of pixels."""
    digest = xxhash.xxh3_128()
    with (folder / PIXELS).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def examined(folder: Path) -> str:
    """Return what is wrong with a chunk, all of which is read; empty where nothing is."""
    try:
        table = sealed_table.read(LocalStore(folder), ROWS)
        pixels = np.load(folder / PIXELS, mmap_mode="r")
        if len(pixels) != table.num_rows:
            return f"it has {len(pixels):,} images and {table.num_rows:,} rows"
        said = (table.schema.metadata or {}).get(DIGEST)  # earlier versions said nothing
        return "" if said in (None, pixels_digest(folder).encode()) else "the pixels are not what was written"
    except (UnreadableTable, OSError, ValueError, EOFError) as error:
        return str(error).partition("\n")[0][:200]


def _mapped(file: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Make a file of zeros, uint8 of a shape, and map it; raises OSError where the disk has no room for it."""
    # Room is taken first: a map of a file that the disk has no room for would kill the process.
    with file.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
        os.posix_fallocate(out.fileno(), out.tell(), math.prod(shape))
    mapped: np.memmap[Any, np.dtype[np.uint8]] = np.load(file, mmap_mode="r+")
    return mapped


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
