"""The pixels of a chunk on disk: squares of one size, or whole pictures of their own sizes one behind the other."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from cvjobs.images.picture import Pixels

SQUARES, WHOLE, ROWS = "pixels.npy", "pixels.bin", "rows.parquet"
DIGEST = b"pixels_xxh3_128"  # of the file of pixels, in the metadata of the rows
PLACE = ("offset", "height", "width")  # of a whole picture: its first byte, and its sides in pixels


class SquarePixels:
    """A file of images of one size, uint8 (count, height, width, 3), being filled from several threads."""

    name = SQUARES

    def __init__(self, folder: Path, count: int, size: tuple[int, int]) -> None:
        """Make a file of zeros; raises OSError where the disk has no room for it."""
        self._pixels = _mapped(folder / SQUARES, (count, *size, 3))

    def put(self, at: int, pixels: Pixels) -> dict[str, int]:
        """Keep an image at its number; return what its row says of its place: nothing."""
        self._pixels[at] = pixels
        return {}

    def end(self) -> None:
        """Write what is still in memory."""
        self._pixels.flush()


class WholePixels:
    """A file of pictures, uint8 (height, width, 3) each, being filled from several threads in any order."""

    name = WHOLE

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / WHOLE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._end, self._lock = 0, threading.Lock()

    def put(self, at: int, pixels: Pixels) -> dict[str, int]:  # noqa: ARG002 - a place is any that is free
        """Add a picture; return what its row says of its place. Raises OSError where the disk is full."""
        with self._lock:
            start, self._end = self._end, self._end + pixels.nbytes
        left, place = memoryview(np.ascontiguousarray(pixels).reshape(-1).data), start
        while left:
            written = os.pwrite(self._file, left, place)
            left, place = left[written:], place + written
        return dict(zip(PLACE, (start, *pixels.shape[:2]), strict=True))

    def end(self) -> None:
        """Do nothing: all is written."""

    def __del__(self) -> None:  # not before: decoders that are left behind may still write
        if hasattr(self, "_file"):
            os.close(self._file)


def pixels_file(folder: Path) -> Path:
    """Return the file of pixels in a chunk's folder."""
    whole = folder / WHOLE
    return whole if whole.exists() else folder / SQUARES


def pixels_digest(folder: Path) -> str:
    """Return the digest of a chunk's file of pixels."""
    digest = xxhash.xxh3_128()
    with pixels_file(folder).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _mapped(file: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Make a file of zeros, uint8 of a shape, and map it; raises OSError where the disk has no room for it."""
    # Room is taken first: a map of a file that the disk has no room for would kill the process.
    with file.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
        os.posix_fallocate(out.fileno(), out.tell(), math.prod(shape))
    mapped: np.memmap[Any, np.dtype[np.uint8]] = np.load(file, mmap_mode="r+")
    return mapped
