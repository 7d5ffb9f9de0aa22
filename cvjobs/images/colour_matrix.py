"""The colours of a profile of a matrix and curves as sRGB, by tables: two to five times as fast as littleCMS.

Light is added up: each value of red, green and blue has the light that it adds to red, green and blue of sRGB. A table
has a row for each pair of a red and a green, which are two bytes beside each other, and so one number.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cvjobs.images.colour_space import SRGB, adapted
from cvjobs.images.picture import Pixels

Floats = npt.NDArray[np.float64]
Number = TypeVar("Number", bound=np.generic)

_CHUNK = 1 << 15  # pixels at a time, so that what is between two steps stays in the processor's cache
_MOST = 65535
_ROOM = 0.01  # of all light: for rounding
_NONE = 2e-4  # of all light: what rounding in a profile adds


def light_of(profile: bytes) -> Floats:
    """Return the light that each value adds: float64 (colour, 256 values, colour of sRGB), 1 for all of a colour.

    Raises ValueError for a profile that is no matrix with curves.
    """
    tags = _tags(profile)
    try:
        columns = np.stack([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
        curves = [_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
        matrix = np.linalg.solve(adapted(SRGB), columns)
    except (KeyError, IndexError, struct.error, np.linalg.LinAlgError) as error:
        raise ValueError("no matrix with curves") from error
    if b"A2B0" in tags or not np.isfinite(matrix).all() or not np.isfinite(curves).all():
        raise ValueError("no matrix with curves")
    return np.asarray(np.stack(curves)[:, :, None] * matrix.T[:, None, :])


class SharedBlue:
    """Converts, in place, RGB whose blue adds to no other colour of sRGB, as in Display P3 and Adobe RGB.

    The pair of red and green has the red and the green of sRGB, and, as one of 256 levels, what it adds to the blue;
    the pair of that level and blue has the blue of sRGB. Raises ValueError for light of other colours.
    """

    def __init__(self, light: Floats) -> None:
        red, green, blue = light
        if np.abs(blue[:, :2]).max() > _NONE:
            raise ValueError("blue adds to red or green")
        both = green[:, None] + red[None]  # (green, red, colour of sRGB): red is the lower byte
        added = both[..., 2]
        levels = np.linspace(added.min(), added.max(), 256)
        level = ((added - levels[0]) / max(levels[1] - levels[0], 1e-9)).round().astype(np.uint32)
        shown = _shown(both[..., :2] + (blue[0, :2] + blue[-1, :2]) / 2).astype(np.uint32)
        self._pairs = (shown[..., 0] | level << 8 | shown[..., 1] << 16).ravel()
        self._blue = (_shown(blue[:, None, 2] + levels).astype(np.uint32) << 8).ravel()

    def __call__(self, pixels: Pixels) -> None:
        """Convert uint8 (height, width, 3), whose colours are beside each other."""
        size = _scratch(pixels)
        index, found, blues = np.empty(size, np.intp), np.empty(size, np.uint32), np.empty(size, np.uint32)
        for some in _chunks(pixels):
            shape = some.shape[:2]
            at, pair, blue = _part(index, shape), _part(found, shape), _part(blues, shape)
            first, second = _pairs(some, 0), _pairs(some, 1)
            np.copyto(at, first)
            self._pairs.take(at, out=pair, mode="wrap")
            np.copyto(first, pair, casting="unsafe")  # red, and the level in the place of green
            np.copyto(at, second)
            self._blue.take(at, out=blue, mode="wrap")
            np.right_shift(pair, 16, out=pair)
            np.bitwise_or(blue, pair, out=blue)
            np.copyto(second, blue, casting="unsafe")


class AnyMatrix:
    """Converts RGB of any matrix, in place.

    The light of red and green together, and of blue, are three numbers of 16 bits in one of 64; of the sums one table
    has the values of sRGB.
    """

    def __init__(self, light: Floats) -> None:
        least, most = light.min(axis=1), light.max(axis=1)
        low, high = least.sum(axis=0).min() - _ROOM, most.sum(axis=0).max() + _ROOM
        scale = _MOST / (high - low)
        red, green, blue = (part - start for part, start in zip(light, least, strict=True))
        both = (green[:, None] + red[None]).reshape(-1, 3)
        self._red_green = _packed(both * scale)
        self._blue = _packed((blue + (least.sum(axis=0) - low)) * scale)
        self._shown = _shown(np.arange(_MOST + 1) / scale + low)

    def __call__(self, pixels: Pixels) -> None:
        """Convert uint8 (height, width, 3), whose colours are beside each other."""
        size = _scratch(pixels)
        index, sums, more = np.empty(size, np.intp), np.empty(size, np.int64), np.empty(size, np.int64)
        values = np.empty(size, np.uint8)
        for some in _chunks(pixels):
            shape = some.shape[:2]
            at, value = _part(index, shape), _part(values, shape)
            light, blue = _part(sums, shape), _part(more, shape)
            np.copyto(at, _pairs(some, 0))
            self._red_green.take(at, out=light, mode="wrap")
            np.copyto(at, some[..., 2])
            light += self._blue.take(at, out=blue, mode="wrap")
            parts = light.view(np.uint16).reshape(*shape, 4)
            for colour in range(3):
                np.copyto(at, parts[..., colour])
                some[..., colour] = self._shown.take(at, out=value, mode="clip")


def _scratch(pixels: Pixels) -> int:
    """Return how many pixels are converted at a time, at most."""
    height, width = pixels.shape[0], pixels.shape[1]
    return int(min(max(_CHUNK, width), height * width))


def _chunks(pixels: Pixels) -> Iterator[Pixels]:
    rows = max(_CHUNK // pixels.shape[1], 1)
    for top in range(0, len(pixels), rows):
        yield pixels[top : top + rows]


def _part(scratch: npt.NDArray[Number], shape: tuple[int, ...]) -> npt.NDArray[Number]:
    return scratch[: shape[0] * shape[1]].reshape(shape)


def _pairs(pixels: Pixels, first: int) -> npt.NDArray[np.uint16]:
    """Return a view of two colours beside each other as one number, (height, width)."""
    return pixels[..., first : first + 2].view(np.uint16)[..., 0]


def _packed(light: Floats) -> npt.NDArray[np.int64]:
    parts = np.zeros((len(light), 4), np.uint16)
    parts[:, :3] = light.round()
    return parts.view(np.int64).ravel()


def _shown(light: Floats) -> npt.NDArray[np.uint8]:
    """Return light by the curve of sRGB, in 0..255; what is beyond 0..1 has no colour in it."""
    light = light.clip(0, 1)
    curved = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray((255 * curved).round(), np.uint8)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """Return the tags of an ICC profile by their names."""
    tags = {}
    for at in range(132, 132 + 12 * min(int.from_bytes(profile[128:132], "big"), 100), 12):
        name, start, length = struct.unpack_from(">4sII", profile.ljust(at + 12, b"\0"), at)
        tags[name] = profile[start : start + length]
    return tags


def _fixed(content: bytes, at: int, count: int) -> list[float]:
    return [value / 65536 for value in struct.unpack_from(f">{count}i", content, at)]


def _xyz(tag: bytes) -> Floats:
    return np.array(_fixed(tag, 8, 3))


def _curve(tag: bytes) -> Floats:
    """Return the light of each of the 256 values that a channel may have."""
    value = np.arange(256) / 255
    if tag[:4] == b"curv":
        count = struct.unpack_from(">I", tag, 8)[0]
        if count < 2:
            return np.asarray(value ** (struct.unpack_from(">H", tag, 12)[0] / 256 if count else 1.0))
        table = np.frombuffer(tag, ">u2", count, 12) / 65535
        return np.interp(value, np.linspace(0, 1, count), table)
    if tag[:4] != b"para":
        raise KeyError(tag[:4])
    kind = struct.unpack_from(">H", tag, 8)[0]
    if kind != 3:  # that of nearly all; gammas are the other
        if kind == 0:
            return np.asarray(value ** _fixed(tag, 12, 1)[0])
        raise KeyError(kind)
    gamma, a, b, c, d = _fixed(tag, 12, 5)
    return np.asarray(np.where(value >= d, np.maximum(a * value + b, 0) ** gamma, c * value))
