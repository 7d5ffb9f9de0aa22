"""TIFFs that Pillow reads wrong or not at all: 16 bits, planes, odd depths and interpretations (pixel rules 2).

Pillow decompresses the strips and tiles, as bytes; what they mean is decided here.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from cvjobs.images.bit_depth import eight_of, used
from cvjobs.images.colour import eight_bits, of_cmyk, of_lab, shown
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform
from cvjobs.images.undecodable import Undecodable

Samples = npt.NDArray[Any]

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, DESCRIPTION = 256, 257, 258, 259, 262, 266, 270
STRIPS, ORIENTATION, CHANNELS, ROWS, STRIP_BYTES, MOST, PLANAR, PREDICTOR = 273, 274, 277, 278, 279, 281, 284, 317
PALETTE, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, EXTRA, FORMAT = 320, 322, 323, 324, 325, 338, 339
LEAST_S, MOST_S, SUBSAMPLING, PROFILE, WHITE_LEVEL = 340, 341, 530, 34675, 50717
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, COLOUR_MAP, MASK, CMYK, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 4, 5, 6, 8, 9
_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, COLOUR_MAP: 1, MASK: 1, CMYK: 4, YCBCR: 3, CIELAB: 3, ICCLAB: 3}
_RAW = 1
_OF_BYTES = (_RAW, 5, 8, 32773, 32946, 34925, 50000)  # none, LZW, deflate, packbits, LZMA, Zstandard: of any bytes
READ = (*_OF_BYTES, 2, 3, 4, 6, 7, 32771)  # and CCITT and JPEG, by libtiff as Pillow brings it
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_ASSOCIATED, _STRAIGHT = 1, 2
_MARGIN = 64 << 20  # bytes that the tiles of a picture may have beside it
_CHANNELS = 64
_MANY = 256  # pages that Pillow does not count in a moment
_ROWS_AT_ONCE = 1 << 22  # bits that are taken apart
_OME_BITS = re.compile(r'\bSignificantBits="(\d{1,2})"')
_UPRIGHT: dict[int, Callable[[Samples], Samples]] = {
    2: lambda values: values[:, ::-1],
    3: lambda values: values[::-1, ::-1],
    4: lambda values: values[::-1],
    5: lambda values: values.swapaxes(0, 1),
    6: lambda values: np.rot90(values, -1),
    7: lambda values: values[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


def opened(content: bytes) -> Tiff | None:
    """Return a TIFF of a kind that is read here; None for one that Pillow reads right, or whose header is damaged."""
    try:
        found = Tiff(content)
        return found if found.ours else None
    except (SyntaxError, struct.error, KeyError, ValueError, TypeError, IndexError, OSError):
        return None


def pages(content: bytes) -> int | None:
    """Return how many pages a TIFF has, in time that grows with them; None where Pillow must say or is to refuse.

    Pillow reads all tags of each page, and compares its place with those of all before.
    """
    if content[:4] not in (b"II*\0", b"MM\0*") or len(content) < 8:
        return None
    (first,) = struct.unpack_from("<I" if content[:2] == b"II" else ">I", content, 4)
    found = list(_directories(content, first))
    return len(found) if len(found) > _MANY else None


class Tiff:
    """The first page of a TIFF."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        file = io.BytesIO(content)
        if content[2:3] == b"+":
            raise ValueError("no classic TIFF")
        self._tags = TiffImagePlugin.ImageFileDirectory_v2(content[:8])
        self.frames = 0
        for directory in _directories(content, self._tags.next):
            self.frames += 1
            if self.frames == 1:
                file.seek(directory)
                self._tags.load(file)
        self._order = "<" if content[:2] == b"II" else ">"
        self.width, self.height = int(self._tags[WIDTH]), int(self._tags[HEIGHT])
        self._channels = int(self._tags.get(CHANNELS, 1))
        bits = self._tags.get(BITS, (1,))
        self._bits, self._same = int(bits[0]), len(set(bits[: self._channels])) == 1
        kinds = self._tags.get(FORMAT, (1,))
        self._kind = int(kinds[0]) if len(set(kinds)) == 1 else 0
        if self._kind == _SIGNED and self._bits == 8 and MOST_S not in self._tags:
            self._kind = _UNSIGNED  # what programs write that mean bytes
        self._photometric = int(self._tags.get(PHOTOMETRIC, WHITE_IS_ZERO))
        self._planar = self._tags.get(PLANAR) == 2 and self._channels > 1

    @property
    def ours(self) -> bool:
        """Whether it is no kind that Pillow reads right."""
        tags = self._tags
        compression = tags.get(COMPRESSION, _RAW)
        if compression not in _OF_BYTES or self._photometric not in _COLOURS:
            return False
        plain = (
            self._photometric not in (MASK, ICCLAB, YCBCR) and self._bits in (1, 2, 4, 8) and self._kind == _UNSIGNED
        )
        if self._photometric == YCBCR and tuple(tags.get(SUBSAMPLING, (2, 2))) != (1, 1):
            return False  # libtiff's business
        narrow = self._channels > 1 and self._bits < 8
        known = self._extra in ((), (0,), (_ASSOCIATED,), (_STRAIGHT,)) and self._photometric in (BLACK_IS_ZERO, RGB)
        return not (
            plain
            and self._same
            and not self._planar
            and not narrow
            and tags.get(PLANAR, 1) == 1
            and tags.get(FILL_ORDER, 1) == 1
            and (not self._extra or known)
            and self._channels <= 4
        )

    @property
    def _extra(self) -> tuple[int, ...]:
        found = tuple(self._tags.get(EXTRA, ()))
        if not found and self._photometric == RGB and self._channels == 4:
            return (_STRAIGHT,)
        return found

    @cached_property
    def _alpha(self) -> int | None:
        """The channel of alpha, None for none."""
        kinds = [kind in (_ASSOCIATED, _STRAIGHT) for kind in self._extra]
        return _COLOURS[self._photometric] + kinds.index(True) if any(kinds) else None

    def pixels(self, transform: Transform) -> tuple[Pixels, int]:
        """Return what it shows, and as ``bit_depth.used``; raises Undecodable."""
        if not self._same or not self._kind or not _COLOURS[self._photometric] <= self._channels <= _CHANNELS:
            raise Undecodable("unsupported_mode", "the channels of this TIFF are of several kinds, too few or too many")
        try:
            values = self._samples()
        except (KeyError, IndexError, TypeError, ValueError, struct.error) as error:
            raise Undecodable("corrupt", "the header of this TIFF is damaged") from error
        turn = _UPRIGHT.get(self._tags.get(ORIENTATION, 1))
        values = np.ascontiguousarray(turn(values) if turn else values)
        count, at, unsaid = _COLOURS[self._photometric], self._alpha, 0
        colours, alpha = values[..., :count], None if at is None else values[..., count:]
        if self._photometric != COLOUR_MAP:
            colours, alpha, unsaid = self._scaled(colours, alpha, transform)
        elif alpha is not None:
            alpha = eight_of(alpha, self._bits)
        if self._photometric == WHITE_IS_ZERO:
            colours = np.iinfo(colours.dtype).max - colours
        if alpha is not None and at is not None and self._extra[at - count] == _ASSOCIATED:
            colours = _divided(colours, alpha)
        profile = self._tags.get(PROFILE)
        profile = profile if isinstance(profile, bytes) else None
        made = self._coloured(colours, profile)
        if alpha is not None:
            made = np.dstack([made, eight_bits(alpha) if made.dtype == np.uint8 else alpha])
        if self._photometric in (CMYK, CIELAB, ICCLAB):
            profile = None  # which was that of the inks
        return shown(made, alpha is not None, profile, transform), unsaid

    def _scaled(
        self, colours: Samples, alpha: Samples | None, transform: Transform
    ) -> tuple[Samples, Samples | None, int]:
        """Return samples of 8 or 16 bits, all of them used."""
        if self._kind != _UNSIGNED or self._bits > 16:
            least, most = (_number(self._tags.get(tag)) for tag in (LEAST_S, MOST_S))
            least = least or 0.0
            if most is None or least >= most:
                kind = {_SIGNED: "signed", _FLOAT: "float"}.get(self._kind, "unsigned")
                raise Undecodable("unsupported_mode", f"{kind} samples of {self._bits} bits have no known range")
            share = (np.nan_to_num(colours.astype(np.float64)) - least) / (most - least)
            if alpha is not None:
                raise Undecodable("unsupported_mode", "signed and float samples with alpha are not supported")
            return (share.clip(0, 1) * 65535).round().astype(np.uint16), None, 0
        if self._bits <= 8:
            return eight_of(colours, self._bits), None if alpha is None else eight_of(alpha, self._bits), 0
        values = colours if alpha is None else np.dstack([colours, alpha])
        values, unsaid = used(values.astype(np.uint16), alpha is not None, self._said, transform)
        return (values, None, unsaid) if alpha is None else (values[..., :-1], values[..., -1:], unsaid)

    @property
    def _said(self) -> int | None:
        """How many bits of 16 are used, where a tag says so; other largest values are those of the picture."""
        if self._bits < 16:
            return self._bits
        for tag in (MOST, MOST_S, WHITE_LEVEL):
            most = _number(self._tags.get(tag))
            if most is not None and most in (2**bits - 1 for bits in range(8, 17)):
                return int(most).bit_length()
        found = _OME_BITS.search(str(self._tags.get(DESCRIPTION, "")))
        return int(found[1]) if found and 8 <= int(found[1]) <= 16 else None

    def _coloured(self, colours: Samples, profile: bytes | None) -> Samples:
        """Return gray or RGB, by the photometric interpretation."""
        kind = self._photometric
        if kind == COLOUR_MAP:
            palette = np.array(self._tags[PALETTE], np.uint32).reshape(3, -1)
            if palette.max(initial=0) > 255:  # else written as 8 bits, by programs that did not read on
                palette = (palette + 128) // 257
            return palette.T.astype(np.uint8)[np.minimum(colours[..., 0], palette.shape[1] - 1)]
        if kind in (CIELAB, ICCLAB):
            lab = _bytes_of_lab(colours, centred=kind == ICCLAB)
            return np.asarray(of_lab(Image.frombytes("LAB", lab.shape[1::-1], lab.tobytes())))
        if kind == CMYK:
            inks = Image.fromarray(np.ascontiguousarray(eight_bits(colours)), "CMYK")
            return np.asarray((of_cmyk(inks, profile) if profile else inks).convert("RGB"))
        if kind == YCBCR:
            return np.asarray(Image.fromarray(np.ascontiguousarray(eight_bits(colours)), "YCbCr").convert("RGB"))
        return colours

    def _samples(self) -> Samples:
        """Return the samples as they are stored, (height, width, channels): the colours, and alpha where it is."""
        wanted = [*range(_COLOURS[self._photometric]), *([] if self._alpha is None else [self._alpha])]
        if self._planar:
            return np.dstack([self._plane(number, 1) for number in wanted])
        values = self._plane(0, self._channels)
        return values if len(wanted) == self._channels else values[..., wanted]

    def _plane(self, number: int, channels: int) -> Samples:
        layout = self._layout(channels)
        each = layout.down * layout.across
        offsets, lengths = self._tags[layout.offsets], self._tags.get(layout.lengths, ())
        places = [int(place) for place in offsets[number * each : (number + 1) * each]]
        wanted = self.height * -(-self.width * channels * self._bits // 8)
        if layout.rows * layout.across * layout.stride > 4 * wanted + _MARGIN:
            raise Undecodable("corrupt", "the header of this TIFF is damaged")
        if len(places) < each:
            raise Undecodable("truncated", "the file ends before its picture does")
        if self._tags.get(COMPRESSION, _RAW) == _RAW:
            packed = self._raw(places, layout)
        else:
            packed = self._unpacked(places, [int(n) for n in lengths[number * each : (number + 1) * each]], layout)
        values = self._numbers(packed.reshape(layout.rows, -1), layout.columns * channels, layout.across)
        values = values.reshape(layout.rows, layout.across, layout.columns, channels)
        if self._tags.get(PREDICTOR, 1) == 2:
            values = np.cumsum(values, axis=2, dtype=values.dtype)
        elif self._tags.get(PREDICTOR, 1) != 1:
            raise Undecodable("unsupported_mode", "this predictor of a TIFF is not supported")
        return values.reshape(layout.rows, -1, channels)[: self.height, : self.width]

    def _layout(self, channels: int) -> PlaneLayout:
        tags = self._tags
        if TILES in tags:
            columns, rows = int(tags[TILE_WIDTH]), int(tags[TILE_HEIGHT])
            across, down = -(-self.width // columns), -(-self.height // rows)
            return PlaneLayout(columns, rows, across, down, -(-columns * channels * self._bits // 8), TILES, TILE_BYTES)
        rows = min(int(tags.get(ROWS, self.height)), self.height)
        stride = -(-self.width * channels * self._bits // 8)
        return PlaneLayout(self.width, rows, 1, -(-self.height // rows), stride, STRIPS, STRIP_BYTES, self.height)

    def _raw(self, places: list[int], layout: PlaneLayout) -> Samples:
        """Return the bytes of tiles or strips that are not compressed, (rows, bytes of all across)."""
        found = np.zeros((layout.down, layout.across, layout.height, layout.stride), np.uint8)
        for at, place in enumerate(places):
            down, across = divmod(at, layout.across)
            wanted = min(layout.height, layout.rows - down * layout.height) * layout.stride
            content = np.frombuffer(self._content[place : place + wanted], np.uint8)
            if len(content) < wanted:
                raise Undecodable("truncated", "the file ends before its picture does")
            found[down, across].reshape(-1)[:wanted] = content
        rows = found.swapaxes(1, 2).reshape(layout.down * layout.height, -1)[: layout.rows]
        return _REVERSED[rows] if self._tags.get(FILL_ORDER) == 2 else rows

    def _unpacked(self, places: list[int], lengths: list[int], layout: PlaneLayout) -> Samples:
        """Return the same of compressed ones: Pillow takes them for a gray image of 8 bits without a predictor."""
        tags = {WIDTH: [layout.across * layout.stride], HEIGHT: [layout.rows], BITS: [8], PHOTOMETRIC: [BLACK_IS_ZERO]}
        tags |= {tag: [int(self._tags.get(tag, 1))] for tag in (COMPRESSION, FILL_ORDER)}
        tags |= {CHANNELS: [1], layout.offsets: places, layout.lengths: lengths}
        if layout.offsets == TILES:
            tags |= {TILE_WIDTH: [layout.stride], TILE_HEIGHT: [layout.height]}
        else:
            tags[ROWS] = [layout.height]
        start = len(self._content)
        header = self._content[:4] + struct.pack(self._order + "I", start)
        file = header + self._content[8:] + _directory(tags, self._order, start)
        with Image.open(io.BytesIO(file), formats=["TIFF"]) as image:
            return np.asarray(image).reshape(layout.rows, -1)

    def _numbers(self, packed: Samples, count: int, across: int) -> Samples:
        """Return the numbers in bytes (rows, bytes): of each of the parts ``across``, ``count``."""
        if self._bits in (8, 16, 32, 64):
            kind = {_UNSIGNED: "u", _SIGNED: "i", _FLOAT: "f"}[self._kind]
            if kind == "f" and self._bits == 8:
                raise Undecodable("unsupported_mode", "float samples of 8 bits are not supported")
            # Of compressed samples and others alike, the bytes are in the order of the file.
            stored = np.dtype(f"{self._order}{kind}{self._bits // 8}")
            return np.ascontiguousarray(packed).view(stored).astype(stored.newbyteorder("="))
        if self._bits > 16 or self._kind != _UNSIGNED:
            raise Undecodable("unsupported_mode", f"samples of {self._bits} bits are not supported")
        return np.concatenate([_apart(part, self._bits, count) for part in np.split(packed, across, axis=1)], axis=1)


@dataclass(frozen=True)
class PlaneLayout:
    """How a plane is cut: tiles or strips, ``across`` and ``down``, of ``columns`` and ``height`` pixels.

    ``stride`` are the bytes of a row of one; ``offsets`` and ``lengths`` are the tags of where they are; ``whole`` are
    the rows of all strips, of which the last may be shorter, 0 for tiles.
    """

    columns: int
    height: int
    across: int
    down: int
    stride: int
    offsets: int
    lengths: int
    whole: int = 0

    @property
    def rows(self) -> int:
        """The rows of all."""
        return self.whole or self.down * self.height


_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1).ravel()


def _apart(packed: Samples, bits: int, count: int) -> Samples:
    """Return numbers of a few bits each, the highest first; each row begins with a byte of its own."""
    found = np.empty((len(packed), count), np.uint16)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint16)
    step = max(_ROWS_AT_ONCE // (count * bits), 1)
    for top in range(0, len(packed), step):
        single = np.unpackbits(packed[top : top + step], axis=1, count=count * bits)
        found[top : top + step] = single.reshape(-1, count, bits).astype(np.uint16) @ weights
    return found


def _bytes_of_lab(colours: Samples, centred: bool) -> Pixels:
    """Return L, and a and b as signed bytes, which is how Pillow takes them."""
    if colours.dtype == np.uint8:
        return np.asarray(colours ^ np.array([0, 128 * centred, 128 * centred], np.uint8), np.uint8)
    half = np.array([0, 32768, 32768], np.uint16)
    light, ab = eight_bits(colours[..., :1]), (colours ^ half if centred else colours)[..., 1:].view(np.int16)
    signed = (ab.astype(np.int32) / 256).round().clip(-128, 127).astype(np.int8)
    return np.dstack([light, signed.view(np.uint8)])


def _divided(colours: Samples, alpha: Samples) -> Samples:
    """Return the colours that were multiplied by alpha."""
    top = np.iinfo(colours.dtype).max
    share = np.maximum(alpha.astype(np.uint32), 1)
    divided = (colours.astype(np.uint32) * top + share // 2) // share
    return np.asarray(np.minimum(divided, top), colours.dtype)


def _directories(content: bytes, first: int) -> Iterator[int]:
    """Yield where the directories of all pages are."""
    order, seen, at = "<" if content[:2] == b"II" else ">", set(), first
    while at and at not in seen and at + 2 <= len(content):
        yield at
        seen.add(at)
        (count,) = struct.unpack_from(order + "H", content, at)
        if at + 6 + 12 * count > len(content):
            return
        (at,) = struct.unpack_from(order + "I", content, at + 2 + 12 * count)


def _directory(tags: dict[int, list[int]], order: str, start: int) -> bytes:
    """Return a directory of numbers that begins at a place of a file."""
    entries, behind, after = b"", b"", start + 6 + 12 * len(tags)
    for tag, values in sorted(tags.items()):
        content = struct.pack(f"{order}{len(values)}I", *values)
        place = content if len(values) == 1 else struct.pack(order + "I", after + len(behind))
        behind += b"" if len(values) == 1 else content
        entries += struct.pack(order + "HHI", tag, 4, len(values)) + place
    return struct.pack(order + "H", len(tags)) + entries + b"\0\0\0\0" + behind


def _number(value: Any) -> float | None:
    try:
        found = float(max(value) if isinstance(value, tuple) else value)
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found) else None
