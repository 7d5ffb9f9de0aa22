"""The items of a HEIC: which of its pictures is the one that viewers show."""

from __future__ import annotations

import re

_HEADER = 4 << 20  # bytes in which the items are named
_PRIMARY = re.compile(rb"pitm([\0\1])\0\0\0(.{4})", re.DOTALL)
_ITEM = re.compile(rb"infe([\2\3])\0\0([\0\1])(.{8,10})", re.DOTALL)
_PICTURES = (b"hvc1", b"grid", b"iden", b"iovl")


def primary_alone(content: bytes) -> bytes:
    """Return a HEIC whose primary picture is the first that a decoder finds; it is nearly always the content itself.

    Where others stand before it, they are marked as hidden, which tiles and other parts of pictures are, too.
    """
    named = _PRIMARY.search(content[:_HEADER])
    if named is None:
        return content
    primary = _number(named[2], wide=named[1] == b"\1")
    shown: dict[int, int] = {}  # where the mark of each is
    for item in _ITEM.finditer(content[:_HEADER]):
        wide = item[1] == b"\3"
        kind = item[3][6:10] if wide else item[3][4:8]
        if kind in _PICTURES and item[2] == b"\0":
            shown[_number(item[3], wide=wide)] = item.start(2)
    if primary not in shown or primary == next(iter(shown)) == min(shown):
        return content
    made = bytearray(content)
    for number, at in shown.items():
        made[at] = number != primary
    return bytes(made)


def _number(field: bytes, *, wide: bool) -> int:
    return int.from_bytes(field[: 4 if wide else 2], "big")
