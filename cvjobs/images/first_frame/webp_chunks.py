"""The first picture of a WebP: its chunks without metadata and later frames, with lengths that are right."""

from __future__ import annotations

import struct

from cvjobs.images.first_frame.layout import PROFILE, Layout, upright

_ICC, _ALPHA, _EXIF, _ANIMATION = 0x20, 0x10, 0x08, 0x02
_FLAGS = {b"ICCP": _ICC, b"ALPH": _ALPHA, b"EXIF": _EXIF, b"ANIM": _ANIMATION}
_PICTURES = (b"VP8 ", b"VP8L", b"ANMF")
_MOST = 16 << 20  # bytes that may be missing
_MORE = 4 << 20
_FILLERS = 0x00, 0x80, 0x01, 0xFF, 0x55


def find(content: bytes) -> Layout:
    """Return the picture with the chunks that its pixels need, and bytes to go on with where it is cut."""
    chunks: dict[bytes, bytes] = {}
    at, frames, missing, picture = 12, 0, 0, b""
    while len(content) >= at + 8:
        kind, length = struct.unpack("<4sI", content[at : at + 8])
        if kind == bytes(4):  # no chunk
            break
        body = content[at + 8 : at + 8 + length]
        at += 8 + length + (length & 1)
        frames += kind == b"ANMF" and len(body) == length
        if kind in _PICTURES and not picture:
            picture, missing = kind, length - len(body)
            chunks[kind] = body
        elif len(body) == length and kind not in chunks and not (picture and kind != b"EXIF"):
            if kind == b"EXIF":
                body = upright(body).removeprefix(b"Exif\0\0")
            if (
                kind in (b"VP8X", b"ALPH", b"ANIM")
                or (kind == b"EXIF" and body)
                or (kind == b"ICCP" and length <= PROFILE)
            ):
                chunks[kind] = body
    extended = chunks.pop(b"VP8X", b"")
    if extended:
        alpha = extended[0] & _ALPHA if b"ALPH" not in chunks else _ALPHA
        flags = alpha | sum(flag for kind, flag in _FLAGS.items() if kind in chunks and flag != _ALPHA)
        extended = _chunk(b"VP8X", bytes([flags]) + extended[1:10])
    else:
        chunks = {kind: body for kind, body in chunks.items() if kind == picture}
    cut = missing > 0 or not picture
    # With more than is missing, a decoder does not come to the end of what makes no sense.
    missing += _MORE if 0 < missing <= _MOST and picture != b"ANMF" else 0
    order = [b"ICCP", b"ANIM", b"ALPH", picture, b"EXIF"]
    made = b"".join(
        _chunk(kind, chunks[kind], missing if kind == picture else 0) for kind in order if kind and kind in chunks
    )
    made = b"WEBP" + extended + made
    odd = b"\0" * ((missing + len(made)) & 1)
    return Layout(
        content=b"RIFF" + struct.pack("<I", len(made) + missing + len(odd)) + made,
        cut=cut,
        endings=tuple(bytes([kind]) * missing + odd for kind in _FILLERS) if 0 < missing <= _MOST + _MORE else (),
        frames=max(frames, 1),
    )


def _chunk(kind: bytes, body: bytes, missing: int = 0) -> bytes:
    """Return a chunk, of which the end may be missing: then it is left open."""
    odd = b"" if missing else b"\0" * (len(body) & 1)
    return kind + struct.pack("<I", len(body) + missing) + body + odd
