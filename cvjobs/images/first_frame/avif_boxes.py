"""The first picture of an AVIF: its boxes, which refer to places in the file, so that none can be left out."""

from __future__ import annotations

import struct

from cvjobs.images.first_frame.layout import Layout, filler

_NEEDED = {b"ftyp", b"meta", b"moov"}
_KNOWN = {*_NEEDED, b"mdat", b"free", b"skip", b"uuid", b"styp", b"sidx", b"moof", b"mfra", b"wide"}
_MOST = 16 << 20  # bytes that may be missing


def find(content: bytes) -> Layout:
    """Return the boxes up to the last one that makes sense, and bytes to go on with where that one is cut."""
    at, seen = 0, set()
    while len(content) >= at + 8:
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        if kind not in _KNOWN:
            break
        seen.add(kind)
        if length == 1:
            length = struct.unpack(">Q", content[at + 8 : at + 16])[0]
        if length == 0 or length > len(content) - at:
            missing = max(at + length - len(content), 0)
            ends = (bytes(missing), filler(missing)) if 0 < missing <= _MOST and kind not in _NEEDED else ()
            return Layout(content=content, cut=missing > 0, endings=ends)
        at += max(length, 8)
    return Layout(content=content[:at], cut=b"mdat" not in seen and at >= len(content) - 8)
