"""Images decoded once, as uint8 in files that every worker maps into its memory; the decoders are the batch jobs'.

They are squares of one size, or whole pictures of their own sizes (``Transform.fit`` "whole"). A chunk of images is a
folder whose name is a digest of their paths, versions and preprocessing: it is there whole or not at all, a run that
was killed continues with those that it has, and runs may share them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvjobs.common import formatting
from cvjobs.common.errors import JobFailed, storage_failure
from cvjobs.dataset import sealed_table
from cvjobs.dataset.sealed_table import UnreadableTable
from cvjobs.images.decode_children import DecoderServer
from cvjobs.sources.reader import Source
from cvjobs.storage.local_store import LocalStore
from cvjobs.training.data.cache_hold import OLD
from cvjobs.training.data.chunk_decoding import TEMPORARY, fill_chunks
from cvjobs.training.data.chunk_pixels import DIGEST, ROWS, SQUARES, pixels_digest, pixels_file
from cvjobs.training.data.decode_request import SCHEMA, DecodedImages, DecodeRequest


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

    @property
    def complete(self) -> bool:
        """Whether all of them are there."""
        return True

    def stand_ins(self, which: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of images to take for some numbers, all of which are images."""
        return which

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
    rows = fill(request, present(request), source, decoder_server, tell)
    good = np.flatnonzero(np.asarray(rows["code"].is_null()))
    return replace(request.listed(), rows=good, pending=False), rows


def present(request: DecodeRequest) -> dict[str, pa.Table]:
    """Return the table of each chunk that is there and whole, by its folder; damaged ones are deleted."""
    chunks = request.chunks()
    try:
        os.makedirs(request.folder, exist_ok=True)
        names = set(os.listdir(request.folder))
        _sweep(request.folder, names)
        tables = {}
        for folder, rows in chunks:
            if os.path.basename(folder) not in names:
                continue
            if (table := request.decoded(folder, rows)) is not None:
                tables[folder] = table
            else:
                shutil.rmtree(folder, ignore_errors=True)
        return tables
    except OSError as error:
        raise storage_failure(error, request.folder, "--cache", begun=False) from error


def _sweep(folder: str, names: Iterable[str]) -> None:
    """Delete chunks that a process which died more than a week ago had begun."""
    for name in filter(TEMPORARY.fullmatch, names):
        place = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            if time.time() - os.stat(place).st_mtime > OLD:
                shutil.rmtree(place, ignore_errors=True)


def fill(
    request: DecodeRequest,
    there: Mapping[str, pa.Table],
    source: Source,
    decoder_server: DecoderServer,
    tell: Callable[[int], None],
    order: Sequence[int] = (),
) -> pa.Table:
    """Decode the chunks that are not there, in an order of their numbers, and return a table as ``decode`` does."""
    chunks = request.chunks()
    tables: dict[str, pa.Table | None] = dict(there)
    try:
        inorder = [chunks[number] for number in order] if len(order) else chunks
        if missing := [(folder, rows) for folder, rows in inorder if folder not in there]:
            fill_chunks(request, missing, source, decoder_server, tell)
            tables |= {folder: request.decoded(folder, rows) for folder, rows in missing}
        if any(table is None for table in tables.values()):
            raise FileNotFoundError(errno.ENOENT, "another command deleted what was decoded", request.folder)
    except OSError as error:
        begun = any(os.path.exists(os.path.join(folder, ROWS)) for folder, _ in chunks)
        raise storage_failure(error, request.folder, "--cache", begun=begun) from error
    return pa.concat_tables([tables[folder] for folder, _ in chunks]).select(SCHEMA.names)


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


def check_room(requests: Sequence[DecodeRequest], folder: str, more: int = 0) -> None:
    """Raise JobFailed, before anything is decoded, where the disk has no room for what no chunk has yet.

    ``more`` are the bytes that images take beside it of which only a part stays.
    """
    place = Path(folder)
    while not place.exists():
        place = place.parent
    wanted = more + sum(request.absent() for request in requests)
    free = shutil.disk_usage(place).free
    if wanted > free:
        fewer = "lower --cache-size" if more else "keep a part with --cache-size"
        raise JobFailed(
            f"The decoded images need {formatting.size(wanted)} in {folder}, where {formatting.size(free)} are free: "
            f"make room, name a larger disk with --cache, lower --img-size, or {fewer}."
        )


def clear(folder: str) -> None:
    """Delete a cache that no other run needs."""
    shutil.rmtree(folder, ignore_errors=True)
