"""The first picture of a JPEG: its tables and scans, without comments, application data and later pictures."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from cvjobs.images.first_frame.layout import Layout, filler, upright

END = b"\xff\xd9"
_SCAN = 0xDA
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_MARK = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]", re.DOTALL)
_FILL = re.compile(rb"\xff{1000,}(?=\xff)")
_FILLED = b"\xff" * 1001  # what the pattern finds at least
_RUN = re.compile(rb"\xff{2,}+")
_MUCH = 1 << 20


@dataclass
class _Header:
    """What stands before the first scan: the segments that decoding needs, the components, where the scan begins."""

    kept: list[bytes]
    components: list[int] = field(default_factory=list)
    scan: int = -1


def find(content: bytes) -> Layout:
    """Return the picture with the segments that its pixels need, up to its end."""
    header = _header(content)
    start = b"".join(header.kept)
    if header.scan < 0:
        return Layout(content=start, cut=True)
    # Down to which bit each coefficient of each component is there, -1 for none of it.
    bits = {component: [-1] * 64 for component in header.components}
    at = header.scan
    while (mark := _MARK.search(content, at)) is not None:
        at = mark.end()
        if mark[0] == END:
            return Layout(content=start + content[header.scan : at])
        if len(content) < at + 2:
            break
        length = struct.unpack(">H", content[at : at + 2])[0]
        if mark[0][1] == _SCAN:
            _note(content[at + 2 : at + length], bits)
        at += max(length, 2)
    missing = any(bit for known in bits.values() for bit in known)
    endings = END, filler(1 << 14) + END
    return Layout(content=start + content[header.scan :].rstrip(b"\xff"), cut=True, endings=endings, refined=missing)


def _note(scan: bytes, bits: dict[int, list[int]]) -> None:
    """Note what a scan brings, by its header."""
    count = scan[0]
    first, last, shift = scan[1 + 2 * count : 4 + 2 * count]
    for component in scan[1 : 1 + 2 * count : 2]:
        known = bits.setdefault(component, [-1] * 64)
        known[first : last + 1] = [shift & 15] * (min(last, 63) + 1 - first)


def _header(content: bytes) -> _Header:
    header, at, turned = _Header([content[:2]]), 2, False
    while 0 <= (at := content.find(b"\xff", at)) <= len(content) - 4:
        marker, length = struct.unpack(">BH", content[at + 1 : at + 4])
        if (run := _RUN.match(content, at)) is not None:
            at = run.end() - 1
            continue
        if marker == 0x00 or marker in _ALONE:
            at += 2
            continue
        if marker == _SCAN:
            header.scan = at
            break
        body = content[at + 4 : at + 2 + length]
        if marker == END[1] or len(body) < length - 2:
            break
        at += 2 + max(length, 2)
        if marker in _FRAMES:
            header.components = list(body[6::3])
        if marker == 0xE1 and body.startswith(b"Exif\0\0") and not turned:
            turned = True
            if said := upright(body):
                header.kept.append(_segment(marker, said if said.startswith(b"Exif\0\0") else b"Exif\0\0" + said))
        elif _tells(marker, body):
            header.kept.append(_segment(marker, body))
    return header


def _tells(marker: int, body: bytes) -> bool:
    """Whether a segment says something about pixels; of comments and application data few do."""
    if marker == 0xE0:
        return body.startswith(b"JFIF\0") and len(body) >= 14
    if marker == 0xE2:
        return body.startswith(b"ICC_PROFILE\0") and len(body) > 14
    if marker == 0xEE:
        return body.startswith(b"Adobe") and len(body) >= 12
    return marker != 0xFE and not 0xE1 <= marker <= 0xEF


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def lighter(content: bytes) -> bytes:
    """Return the content without megabytes of metadata before the picture, which take decoders minutes."""
    if content.find(_FILLED, 0, _MUCH) >= 0:  # a search for the pattern costs milliseconds in each photo
        content = _FILL.sub(b"", content)
    header = _header(content)
    return b"".join(header.kept) + content[header.scan :] if header.scan > _MUCH else content
