"""The first picture of a PNG: its chunks without texts, later frames and what is damaged of the rest."""

from __future__ import annotations

import struct
import zlib

from cvjobs.images.first_frame.layout import PROFILE, Layout, ends, unpacks, upright

_MAGIC = b"\x89PNG\r\n\x1a\n"
_COLOURS = {b"cHRM": 32, b"gAMA": 4, b"sRGB": 1, b"sBIT": 1, b"cICP": 4}  # with the bytes of each, at least
_LONGEST = (1 << 31) - 1
_CUT = {b"IHDR", b"PLTE", b"IDAT", b""}


def find(content: bytes) -> Layout:
    """Return the picture with the chunks that its pixels need; one of the others counts only where it is whole."""
    kept, animation, data, at, frames = [_MAGIC], [], [], 8, 1
    while True:
        kind, body, whole, length = _chunk(content, at)
        at += 12 + length
        if kind == b"IDAT":
            data.append(body)
        if data and kind != b"IDAT":
            break
        if length > _LONGEST:
            return Layout(content=content)
        if len(body) < length or not kind:
            break
        if kind == b"IEND" or not kind.isalpha() or (kind in (b"IHDR", b"PLTE") and not whole):
            return Layout(content=content)
        if kind in (b"IHDR", b"PLTE"):
            kept.append(content[at - 12 - length : at])
        elif whole and kind == b"acTL" and length == 8:
            frames = struct.unpack(">I", body[:4])[0]
            animation = [_made(kind, body)] if 0 < frames < 1 << 31 else []
        elif whole and kind == b"fcTL" and body[:20] == bytes(4) + kept[1][8:16] + bytes(8):
            animation.append(_made(kind, body))
        elif whole:
            kept.append(_telling(kind, body))
    pixels = b"".join(data)
    if animation and animation[0][4:8] == b"acTL":
        kept += animation
    cut = not data or (len(body) < length and kind in _CUT and not ends(pixels))
    ending = [_made(b"IDAT", pixels), _made(b"IEND", b"")] if data else []
    return Layout(content=b"".join(kept + ending), cut=cut, frames=max(frames, 1))


def _chunk(content: bytes, at: int) -> tuple[bytes, bytes, bool, int]:
    """Return a chunk's kind, its content as far as it is there, whether all of it is, and its length."""
    if len(content) < at + 8:
        return b"", b"", False, 1
    length, kind = struct.unpack(">I4s", content[at : at + 8])
    body = content[at + 8 : at + 8 + length]
    checksum = content[at + 8 + length : at + 12 + length]
    whole = len(checksum) == 4 and struct.unpack(">I", checksum)[0] == zlib.crc32(body, zlib.crc32(kind))
    return kind, body, whole, length


def _telling(kind: bytes, body: bytes) -> bytes:
    """Return a whole chunk before the picture where it says something about pixels that a decoder can read."""
    if kind == b"eXIf":
        return _made(kind, said.removeprefix(b"Exif\0\0")) if (said := upright(body)) else b""
    if kind == b"iCCP":
        name, _, packed = body.partition(b"\0")
        fits = 0 < len(name) < 80 and packed[:1] == b"\0" and unpacks(packed[1:], PROFILE)
    else:
        fits = kind == b"tRNS" or len(body) >= _COLOURS.get(kind, 1 << 32)
    return _made(kind, body) if fits else b""


def _made(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
