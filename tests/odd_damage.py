"""Images of every format that are damaged in some way: within their pixels, behind their first picture, in metadata."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image

SIDE = (40, 56)


@dataclass(frozen=True)
class Sound:
    """A file as it should be; what lies behind ``end`` is not of its first picture."""

    name: str
    content: bytes
    end: int


@dataclass(frozen=True)
class Damaged:
    """A damaged file, what was done to it, and whether it should still have the ``sound`` pixels."""

    content: bytes
    sound: Sound
    what: str
    harmless: bool


def picture(seed: int, mode: str = "RGB") -> Image.Image:
    """A picture with noise in it, of which no two rows are alike."""
    y, x = np.mgrid[0 : SIDE[0], 0 : SIDE[1]]
    noise = np.random.default_rng(seed).integers(0, 60, (*SIDE, 3))
    return Image.fromarray((np.stack([4 * x, 6 * y, 2 * (x + y)], 2) % 200 + noise).astype(np.uint8)).convert(mode)


def encoded(format_: str, mode: str = "RGB", pages: int = 1, **options: Any) -> bytes:
    """A file of so many pictures."""
    file = io.BytesIO()
    several = {"save_all": True, "append_images": [picture(i, mode) for i in range(1, pages)]} if pages > 1 else {}
    picture(0, mode).save(file, format_, **several, **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    """EXIF data that say an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _png_end(content: bytes) -> int:
    at = content.index(b"IDAT") - 4
    while content[at + 4 : at + 8] == b"IDAT":
        at += 12 + int(struct.unpack(">I", content[at : at + 4])[0])
    return at


def _gif_end(content: bytes) -> int:
    at = content.index(b"\x2c\0\0\0\0") + 10
    if content[at - 1] & 128:
        at += 3 << (content[at - 1] & 7) + 1
    at += 1
    while content[at]:
        at += 1 + content[at]
    return at + 1


def _webp_end(content: bytes) -> int:
    at = min(found for kind in (b"VP8 ", b"VP8L", b"ANMF") if (found := content.find(kind)) > 0)
    length = int(struct.unpack("<I", content[at + 4 : at + 8])[0])
    return at + 8 + length + (length & 1)


def _tiff_end(content: bytes) -> int:
    at = int(struct.unpack("<I", content[4:8])[0])
    count = int(struct.unpack("<H", content[at : at + 2])[0])
    following = int(struct.unpack("<I", content[at + 2 + 12 * count : at + 6 + 12 * count])[0])
    return following if following > at else len(content)


def _jpeg_end(content: bytes) -> int:
    return content.index(b"\xff\xd9", content.index(b"\xff\xda")) + 2


_ENDS: dict[str, Callable[[bytes], int]] = {
    "PNG": _png_end,
    "GIF": _gif_end,
    "WEBP": _webp_end,
    "TIFF": _tiff_end,
    "JPEG": _jpeg_end,
    "MPO": _jpeg_end,
}


def end(format_: str, content: bytes) -> int:
    """Where the first picture of a file ends."""
    return _ENDS.get(format_, len)(content)


_KINDS: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True, "comment": b"a comment", "exif": turned(6)}),
    ("JPEG", {"mode": "L", "icc_profile": b"profile" * 40}),
    ("JPEG", {"mode": "CMYK"}),
    ("MPO", {"pages": 3}),
    ("PNG", {}),
    ("PNG", {"mode": "P", "exif": turned(3)}),
    ("PNG", {"mode": "LA"}),
    ("PNG", {"mode": "I;16"}),
    ("PNG", {"pages": 3}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True, "mode": "RGBA"}),
    ("WEBP", {"pages": 3}),
    ("GIF", {}),
    ("GIF", {"pages": 3, "comment": b"a comment"}),
    ("BMP", {}),
    ("BMP", {"mode": "P"}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"pages": 3}),
    ("TIFF", {"compression": "jpeg"}),
    ("AVIF", {}),
    ("AVIF", {"pages": 2}),
    ("PPM", {}),
]


@cache
def sound() -> tuple[Sound, ...]:
    """One file of each kind."""
    made = []
    for format_, options in _KINDS:
        content = encoded(format_, **options)
        made.append(Sound(" ".join([format_, *map(str, options)]), content, end(format_, content)))
    return tuple(made)


def chunk(kind: bytes, body: bytes, checksum: int | None = None) -> bytes:
    """A chunk of PNG."""
    right = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", right if checksum is None else checksum)


def segment(marker: int, body: bytes) -> bytes:
    """A segment of JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _noise(generator: Generator, most: int) -> bytes:
    return generator.bytes(int(generator.integers(1, most)))


def _cut(generator: Generator, of: bytes, start: int) -> bytes:
    return of[: int(generator.integers(start, len(of) + 1))]


def _flipped(generator: Generator, of: bytes, start: int) -> bytes:
    made = bytearray(of)
    for _ in range(int(generator.integers(1, 20))):
        if start < len(of):
            made[int(generator.integers(start, len(of)))] ^= 1 << int(generator.integers(8))
    return bytes(made)


def _overwritten(generator: Generator, of: bytes, start: int) -> bytes:
    at, filler = int(generator.integers(start, len(of) + 1)), _noise(generator, 200)
    return of[:at] + (bytes(len(filler)) if generator.random() < 0.5 else filler) + of[at + len(filler) :]


def _spliced(generator: Generator, of: bytes, start: int) -> bytes:
    """A piece of it, or of another file, at another place, or twice."""
    pool = of if generator.random() < 0.5 else sound()[int(generator.integers(len(sound())))].content
    a, b = sorted(int(n) for n in generator.integers(0, len(pool) + 1, 2))
    at = int(generator.integers(start, len(of) + 1))
    return of[:at] + pool[a:b] + of[at + (b - a if generator.random() < 0.3 else 0) :]


def _length(generator: Generator, of: bytes, start: int) -> bytes:
    """A number of four bytes that says something else."""
    at = int(generator.integers(start, max(len(of) - 3, start + 1)))
    value = int(generator.choice([0, 1, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, len(of), 1 << 20]))
    return of[:at] + struct.pack(generator.choice(["<I", ">I"]), value) + of[at + 4 :]


def _appended(generator: Generator, of: bytes, start: int) -> bytes:
    del start
    return of + (_noise(generator, 3000) if generator.random() < 0.7 else of)


_DAMAGES = [_cut, _flipped, _overwritten, _spliced, _length, _appended]


def _metadata(generator: Generator, of: Sound) -> bytes | None:
    """The file with metadata before its picture that no decoder can read, or should; None for other formats."""
    body = _noise(generator, 300)
    bomb = b"k\0\0" + zlib.compress(bytes(9 << 20))
    if of.content[:4] == b"\x89PNG":
        bad = [
            chunk(b"tEXt", body, 7),
            chunk(b"zTXt", b"k\0\0" + body),
            chunk(b"zTXt", bomb),
            chunk(b"iTXt", body),
            chunk(b"iCCP", body),
            chunk(b"iCCP", b"p\0\1" + body),
            chunk(b"iCCP", bomb.replace(b"k\0\0", b"p\0\0", 1)),
            chunk(b"gAMA", b""),
            chunk(b"cHRM", body[:20]),
            chunk(b"pHYs", b"\0"),
            chunk(b"prVt", body, 7),
            chunk(b"tIME", body),
        ]
        return of.content[:33] + bad[int(generator.integers(len(bad)))] + of.content[33:]
    if of.content[:2] == b"\xff\xd8" and not of.name.startswith("MPO"):
        bad = [
            segment(0xE0, b"JFIF\0"),
            segment(0xE2, b"MPF\0" + body),
            segment(0xE2, b"MPF\0II*\0\x08\0\0\0" + body),
            segment(0xED, b"Photoshop 3.0\x008BIM" + body),
            segment(0xED, b"Photoshop 3.0\x008BIM"),
            segment(0xEE, b"Adobe"),
            segment(0xFE, body),
            segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + body),
            segment(0xE5, b""),
            segment(0xE2, b"ICC_PROFILE\0"),
        ]
        return of.content[:2] + bad[int(generator.integers(len(bad)))] + of.content[2:]
    return None


def damaged(generator: Generator) -> Damaged:
    """One damaged file."""
    of = sound()[int(generator.integers(len(sound())))]
    way = generator.random()
    if way < 0.2 and (content := _metadata(generator, of)) is not None:
        return Damaged(content, of, "metadata", harmless=True)
    harmless = way < 0.6
    damage = _DAMAGES[int(generator.integers(len(_DAMAGES)))]
    return Damaged(damage(generator, of.content, of.end if harmless else 0), of, damage.__name__, harmless)
