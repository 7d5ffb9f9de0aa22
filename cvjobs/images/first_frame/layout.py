"""What is known of a file's first picture before any pixel is decoded, and the metadata that pixels need."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from PIL import Image

PROFILE = 8 << 20  # bytes of an ICC profile that is kept
_ORIENTATION = 0x0112


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A file of the first picture alone; ``cut``: the given one ends within it.

    A picture that is cut may have all its pixels: where ``endings`` behind ``content`` all come to the same, what
    is missing matters to none, unless it would be ``refined`` in parts that are missing as a whole. ``frames`` counts
    the pictures that the given file has, None where the decoder knows.
    """

    content: bytes
    cut: bool = False
    endings: tuple[bytes, ...] = ()
    refined: bool = False
    frames: int | None = None


def upright(exif: bytes) -> bytes:
    """Return EXIF data that says the same orientation and nothing else; empty where it says none, or is damaged."""
    try:
        said = Image.Exif()
        said.load(exif)
        orientation = said.get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - it raises whatever comes to its mind
        return b""
    if orientation not in range(2, 9):
        return b""
    plain = Image.Exif()
    plain[_ORIENTATION] = orientation
    return plain.tobytes()


def unpacks(packed: bytes, most: int) -> bool:
    """Whether a zlib stream is readable and at most so many bytes, of which no more are ever in memory."""
    stream = zlib.decompressobj()
    try:
        stream.decompress(packed, most)
    except zlib.error:
        return False
    return not stream.unconsumed_tail


def ends(packed: bytes) -> bool:
    """Whether a zlib stream has its end; a megabyte of what it holds is in memory at a time."""
    stream = zlib.decompressobj()
    try:
        while packed and not stream.eof:
            stream.decompress(packed, 1 << 20)
            packed = stream.unconsumed_tail
    except zlib.error:
        return False
    return stream.eof


def filler(count: int) -> bytes:
    """Return so many bytes that look like nothing in particular, without a marker of JPEG among them."""
    return (b"\x5a\xc3\x96\x3c\x17\xe9\x71\x88\x2b" * (count // 9 + 1))[:count]
