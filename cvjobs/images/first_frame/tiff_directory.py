"""The first picture of a TIFF: its directory with the tags that pixels need, and none behind it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cvjobs.images.first_frame.layout import Layout

_PIXELS = {
    *(254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 274, 277, 278, 279, 280, 281, 284, 290, 291, 292, 293),
    *(301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 332, 333, 334, 336, 338, 339, 340, 341, 347),
    *(512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 34675),
}
_NEEDED = {258, 273, 279, 320, 324, 325, 347}  # of those that may lie outside of the directory
_PLACES = ((273, 279), (324, 325))  # offsets and lengths of strips, and of tiles
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NUMBERS = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_MOST_PAGES = 100_000


@dataclass(frozen=True)
class _Form:
    """How numbers are written: their order, those of a directory's count, entries and offsets."""

    order: str
    count: str
    offset: str

    @property
    def entry(self) -> int:
        """The bytes of an entry."""
        return 4 + 2 * struct.calcsize(self.offset)

    def read(self, kind: str, content: bytes, at: int) -> int:
        """Return a number; raises struct.error where the content ends before it."""
        found: int = struct.unpack_from(self.order + kind, content, at)[0]
        return found


def find(content: bytes) -> Layout:
    """Return the file with a directory of the first picture's tags alone, in the place of the one it has."""
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", content, 2)[0] == 43
    form = _Form(order, "Q", "Q") if big else _Form(order, "H", "I")
    at = form.read(form.offset, content, 8 if big else 4)
    try:
        count = form.read(form.count, content, at)
    except struct.error:
        return Layout(content=content, cut=True)
    start = at + struct.calcsize(form.order + form.count)
    end = start + count * form.entry
    if end > len(content):
        return Layout(content=content, cut=True)
    entries = [content[i : i + form.entry] for i in range(start, end, form.entry)]
    kept = [entry for entry in entries if form.read("H", entry, 0) in _PIXELS and _inside(form, entry, len(content))]
    tags = {form.read("H", entry, 0): entry for entry in kept}
    made = bytearray(content)
    table = struct.pack(form.order + form.count, len(kept)) + b"".join(kept) + bytes(struct.calcsize(form.offset))
    made[at : at + len(table)] = table
    cut = any(_beyond(form, content, tags.get(places), tags.get(lengths)) for places, lengths in _PLACES)
    lost = _NEEDED - tags.keys()
    cut = cut or any(form.read("H", entry, 0) in lost for entry in entries)
    return Layout(content=bytes(made), cut=cut, frames=_pages(form, content, at))


def _inside(form: _Form, entry: bytes, length: int) -> bool:
    """Whether the values of an entry lie within the file."""
    kind, count = form.read("H", entry, 2), form.read(form.offset, entry, 4)
    width = struct.calcsize(form.order + form.offset)
    size = _SIZES.get(kind, 1) * count
    return size <= width or form.read(form.offset, entry, 4 + width) + size <= length


def _values(form: _Form, content: bytes, entry: bytes) -> tuple[int, ...]:
    kind, count = form.read("H", entry, 2), form.read(form.offset, entry, 4)
    width = struct.calcsize(form.order + form.offset)
    code = f"{form.order}{count}{_NUMBERS[kind]}"
    if struct.calcsize(code) <= width:
        return struct.unpack_from(code, entry, 4 + width)
    return struct.unpack_from(code, content, form.read(form.offset, entry, 4 + width))


def _beyond(form: _Form, content: bytes, places: bytes | None, lengths: bytes | None) -> bool:
    """Whether the file ends before a strip or tile does."""
    if places is None or lengths is None:
        return False
    pairs = zip(_values(form, content, places), _values(form, content, lengths), strict=False)
    return any(place + length > len(content) for place, length in pairs)


def _pages(form: _Form, content: bytes, at: int) -> int:
    """Return how many directories follow one another in the file."""
    seen: set[int] = set()
    while at and at not in seen and len(seen) < _MOST_PAGES:
        try:
            count = form.read(form.count, content, at)
            following = form.read(
                form.offset, content, at + struct.calcsize(form.order + form.count) + count * form.entry
            )
        except struct.error:
            break
        seen.add(at)
        at = following
    return max(len(seen), 1)
