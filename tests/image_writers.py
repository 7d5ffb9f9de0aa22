"""Image files from samples, of kinds that Pillow does not write: TIFFs, PNGs and PNMs of every depth."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[Any]
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR, CIELAB = 0, 1, 2, 3, 4, 5, 6, 8
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, MASK: 1, CMYK: 4, YCBCR: 3, CIELAB: 3}
NO_ALPHA, ASSOCIATED, STRAIGHT = None, 1, 2


def tiff(  # noqa: PLR0912, PLR0913 - as many tags
    samples: Samples,
    photometric: int,
    *,
    bits: int,
    big: bool = False,
    extra: int | None = None,
    planar: bool = False,
    deflate: bool = False,
    predictor: bool = False,
    tile: int = 0,
    rows: int = 0,
    reversed_bits: bool = False,
    kind: int = 1,
    tags: dict[int, tuple[str, Sequence[Any]]] | None = None,
) -> bytes:
    """Return a TIFF of samples (height, width, channels).

    Args:
        samples: Unsigned, signed or float values of ``bits`` bits.
        photometric: How they show colours.
        bits: Of one sample.
        big: Whether the byte order is big-endian.
        extra: What the channel behind the colours is (0 nothing known, 1 associated alpha, 2 straight alpha).
        planar: Whether each channel is stored by itself.
        deflate: Whether it is compressed.
        predictor: Whether the differences of neighbours are compressed.
        tile: The side of its tiles, 0 for strips.
        rows: Of a strip, 0 for all.
        reversed_bits: Whether the lowest bit of each byte comes first.
        kind: The sample format: 1 unsigned, 2 signed, 3 float.
        tags: More tags, as number to (type, values); types are B, H, I, A (text) and R (pairs).
    """
    order = ">" if big else "<"
    height, width, channels = samples.shape
    values: dict[int, tuple[str, Sequence[Any]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * channels),
        259: ("H", [8 if deflate else 1]),
        262: ("H", [photometric]),
        277: ("H", [channels]),
        284: ("H", [2 if planar else 1]),
    }
    if reversed_bits:
        values[266] = ("H", [2])
    if predictor:
        values[317] = ("H", [2])
    if kind != 1:
        values[339] = ("H", [kind] * channels)
    if extra is not None:
        values[338] = ("H", [extra])
    planes = np.split(samples, channels, axis=2) if planar else [samples]
    chunks = []
    for plane in planes:
        if tile:
            down, right = -height % tile, -width % tile
            padded = np.pad(plane, ((0, down), (0, right), (0, 0)))
            for top in range(0, height, tile):
                for left in range(0, width, tile):
                    chunks.append(padded[top : top + tile, left : left + tile])
        else:
            chunks += [plane[top : top + (rows or height)] for top in range(0, height, rows or height)]
    packed = [_packed(chunk, bits, order, predictor) for chunk in chunks]
    if deflate:
        packed = [zlib.compress(one) for one in packed]
    if reversed_bits:
        packed = [bytes(int(f"{byte:08b}"[::-1], 2) for byte in one) for one in packed]
    if tile:
        values |= {322: ("I", [tile]), 323: ("I", [tile]), 325: ("I", [len(one) for one in packed])}
    else:
        values |= {278: ("I", [rows or height]), 279: ("I", [len(one) for one in packed])}
    values |= tags or {}
    return _tiff_file(order, values, packed, 324 if tile else 273)


def _packed(chunk: Samples, bits: int, order: str, predictor: bool) -> bytes:
    """Return the rows of a strip or tile as bytes; what is no whole byte is padded at the end of each row."""
    if predictor:
        chunk = np.concatenate([chunk[:, :1], chunk[:, 1:] - chunk[:, :-1]], axis=1)
    if bits >= 8 and bits % 8 == 0:
        return chunk.astype(chunk.dtype.newbyteorder(">" if order == ">" else "<")).tobytes()
    lines = chunk.reshape(len(chunk), -1).astype(np.uint32)
    single = (lines[:, :, None] >> np.arange(bits - 1, -1, -1, dtype=np.uint32)) & 1
    return np.packbits(single.reshape(len(chunk), -1).astype(np.uint8), axis=1).tobytes()


def _tiff_file(order: str, values: dict[int, tuple[str, Sequence[Any]]], packed: list[bytes], offsets: int) -> bytes:
    places, at = [], 8
    for one in packed:
        places.append(at)
        at += len(one) + len(one) % 2
    values[offsets] = ("I", places)
    body = b"".join(one + b"\0" * (len(one) % 2) for one in packed)
    directory = struct.pack(order + "H", len(values))
    start = 8 + len(body)
    behind, after = b"", start + 2 + 12 * len(values) + 4
    kinds = {"B": (7, "B"), "H": (3, "H"), "I": (4, "I"), "A": (2, "B"), "R": (5, "I")}
    for tag in sorted(values):
        kind, found = values[tag]
        number, letter = kinds[kind]
        content = struct.pack(f"{order}{len(found)}{letter}", *found)
        count = len(found) // 2 if kind == "R" else len(found)
        if len(content) <= 4:
            place = content.ljust(4, b"\0")
        else:
            place = struct.pack(order + "I", after + len(behind))
            behind += content + b"\0" * (len(content) % 2)
        directory += struct.pack(order + "HHI", tag, number, count) + place
    magic = b"MM\0*" if order == ">" else b"II*\0"
    return magic + struct.pack(order + "I", start) + body + directory + b"\0\0\0\0" + behind


def png(samples: Samples, colour: int, bits: int, *extra: bytes) -> bytes:
    """Return a PNG of samples (height, width, channels); ``extra`` are chunks before the pixels."""
    height, width = samples.shape[:2]
    lines = b"".join(b"\0" + _packed(row[None], bits, ">", False) for row in samples)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def pnm(samples: Samples, most: int) -> bytes:
    """Return a PGM or PPM of samples (height, width, 1 or 3) from 0 to ``most``."""
    height, width, channels = samples.shape
    kind = "u1" if most < 256 else ">u2"
    return b"P%d\n%d %d\n%d\n" % (5 if channels == 1 else 6, width, height, most) + samples.astype(kind).tobytes()


def jpeg12(blocks: int = 4) -> bytes:
    """Return a valid gray JPEG of 12 bits a sample: a row of even blocks, each lighter than the last."""
    segments = (
        (0xDB, b"\0" + b"\1" * 64),
        (0xC1, struct.pack(">BHHB", 12, 8, 8 * blocks, 1) + b"\1\x11\0"),
        (0xC4, b"\x00" + bytes([0, 0, 0, 15, *[0] * 12]) + bytes(range(15))),  # each category in four bits
        (0xC4, b"\x10" + bytes([1, *[0] * 15]) + b"\0"),  # the end of a block in one
        (0xDA, b"\1\1\0\0\x3f\0"),
    )
    bits, step = "", 900  # of what is 8 times the sum: the first block is black
    for difference in (-8 * 2047, *[step] * (blocks - 1)):
        length = abs(difference).bit_length()
        value = difference if difference > 0 else difference + 2**length - 1
        bits += f"{length:04b}{value:0{length}b}0"
    bits += "1" * (-len(bits) % 8)
    packed = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    head = b"".join(b"\xff" + struct.pack(">BH", marker, len(body) + 2) + body for marker, body in segments)
    return b"\xff\xd8" + head + packed + b"\xff\xd9"
