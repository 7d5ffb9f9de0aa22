"""Which JPEGs a device decodes as the processor does: photos as cameras and programs write most of them.

Everything else is for the processor, whose decoders know all that a JPEG may be: other processes than the baseline,
samplings of the colour that are upsampled in another way, CMYK, colours of a profile, pictures that lie on their side,
restart markers, several scans, more than one picture, files that are cut, headers with tables that are none, and scans
with bytes that no encoder writes.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Sequence
from functools import lru_cache

from PIL import Image

from cvjobs.images import orientation
from cvjobs.images.colour import conversion

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_BASELINE, _HUFFMAN, _QUANTA, _SCAN, _APP1, _ADOBE = 0xC0, 0xC4, 0xDB, 0xDA, 0xE1, 0xEE
_PASSED_OVER = {*range(0xE0, 0xF0), 0xFE}  # application's data and comments
_MARKER = re.compile(rb"\xff[^\0]")  # in a scan 0 follows on 0xFF, but for what ends it
_WHOLE = b"\0\x3f\0"  # a scan with all of its coefficients
_EXIF, _XMP, _PROFILE, _MANY = b"Exif", b"http://ns.adobe.com/", b"ICC_PROFILE\0", b"MPF\0"
_ORIENTATION = orientation.TAG.to_bytes(2, "big"), orientation.TAG.to_bytes(2, "little")
_SAMPLINGS = {0x11, 0x21, 0x22}  # 4:4:4, 4:2:2 and 4:2:0 of the brightness; the colour has 1 x 1
_LONG = 4  # times the shorter side
_LEAST = 16  # pixels a side
_TABLES = 64  # remembered: nearly all files have the same few

Part = tuple[int, int, int]  # of a frame: its name, its sampling, and the number of its table of quanta


def suited(content: bytes, max_pixels: int) -> tuple[int, int] | None:
    """Return the (height, width) of a JPEG that a device decodes right, None for every other file."""
    if not content.startswith(_START) or not content.endswith(_END):
        return None
    with contextlib.suppress(Exception):  # what a damaged header does is for the processor to say
        return _suited(content, max_pixels)
    return None


def _suited(content: bytes, max_pixels: int) -> tuple[int, int] | None:
    at, size = 2, (0, 0)
    parts: Sequence[Part] = ()
    huffman: set[int] = set()
    quanta: set[int] = set()
    while content[at] == 0xFF:
        marker, (length,) = content[at + 1], struct.unpack_from(">H", content, at + 2)
        body = content[at + 4 : at + 2 + length]
        at += 2 + length
        if len(body) != length - 2:
            return None
        if marker == _SCAN:
            tables = quanta.issuperset(part[2] for part in parts) and huffman.issuperset(_used(body, parts))
            return size if tables and _fits(size, max_pixels) and _whole(content, at) else None
        if marker == _BASELINE and not parts:
            size, parts = _baseline(body)
        elif marker == _HUFFMAN:
            huffman |= _huffman(body)
        elif marker == _QUANTA:
            quanta |= _quanta(body)
        elif marker not in _PASSED_OVER or not _plain(marker, body):
            return None
    return None


def _whole(content: bytes, at: int) -> bool:
    """Whether the scan that begins at a byte ends with the file, and has no marker inside."""
    found = _MARKER.search(content, at)
    return found is not None and found.start() == len(content) - len(_END)


def _fits(size: tuple[int, int], max_pixels: int) -> bool:
    short, long = sorted(size)
    return short >= _LEAST and long <= _LONG * short and short * long <= max_pixels


def _baseline(body: bytes) -> tuple[tuple[int, int], Sequence[Part]]:
    """Return the size and the parts in a header of a frame; raises ValueError where its samples are not usual ones."""
    bits, height, width, count = struct.unpack_from(">BHHB", body)
    parts = list(struct.iter_unpack("BBB", body[6:]))
    usual = bits == 8 and len(parts) == count and parts[0][1] in _SAMPLINGS
    colour = [part[0] for part in parts] == [1, 2, 3] and parts[1][1] == parts[2][1] == 0x11
    if not usual or not (count == 1 or colour):
        raise ValueError("not a usual frame")
    return (height, width), parts


def _used(body: bytes, parts: Sequence[Part]) -> set[int]:
    """Return which tables of codes the header of a scan names; raises ValueError where it is not one of all parts."""
    names, tables = body[1:-3:2], body[2:-3:2]
    if not parts or body[0] != len(parts) or [*names] != [part[0] for part in parts] or body[-3:] != _WHOLE:
        raise ValueError("not the only scan")
    return {table >> 4 for table in tables} | {0x10 | table & 15 for table in tables}


@lru_cache(_TABLES)
def _huffman(body: bytes) -> frozenset[int]:
    """Return which tables a segment defines, 16 more for those of AC; raises ValueError where one is none."""
    found, at = set(), 0
    while at < len(body):
        kind, counts = body[at], body[at + 1 : at + 17]
        symbols = body[at + 17 : at + 17 + sum(counts)]
        code = 0
        for bits, count in enumerate(counts, start=1):
            code = 2 * code + count
            if count and code >= 1 << bits:  # none is of ones alone
                raise ValueError("more codes than there are")
        most = 10 if kind & 0x10 else 11
        if kind not in (0, 1, 0x10, 0x11) or not symbols or len(symbols) != sum(counts):
            raise ValueError("not a table")
        if any((symbol & 15 if kind & 0x10 else symbol) > most for symbol in symbols):
            raise ValueError("a number of more bits than there are")
        found.add(kind)
        at += 17 + len(symbols)
    return frozenset(found)


def _quanta(body: bytes) -> set[int]:
    """Return which tables of 8-bit quanta a segment defines; raises ValueError where one is none."""
    found = {*body[::65]}
    if len(body) % 65 or max(found) > 3:
        raise ValueError("not a table")
    return found


def _plain(marker: int, body: bytes) -> bool:
    """Whether a segment leaves the pixels as they are decoded."""
    if marker == _ADOBE and body.startswith(b"Adobe"):
        return body[11:12] == b"\1"  # YCbCr
    if marker == _APP1 and not body.startswith((_EXIF, _XMP)):
        return False  # a decoder may take it for EXIF data
    if body.startswith(_EXIF) and any(name in body for name in _ORIENTATION):
        exif = Image.Exif()
        exif.load(body)
        return bool(exif.get(orientation.TAG) == 1)
    if body.startswith(_PROFILE):  # in one piece, and of what is sRGB by another name
        return body[12:14] == b"\1\1" and conversion(body[14:]) is None
    return not body.startswith(_MANY)
