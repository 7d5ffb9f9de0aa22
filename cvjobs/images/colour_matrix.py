"""The colours of a profile of a matrix and curves as sRGB, by tables: more than twice as fast as littleCMS.

Light is added up: each value of red and green together, and each of blue, has the light that it adds to red, green and
blue of sRGB, as three numbers of 16 bits in one of 64. Of the sums one table has the values of sRGB.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from cvjobs.images.colour_space import SRGB, adapted

Floats = npt.NDArray[np.float64]

_CHUNK = 1 << 14  # pixels at a time, so that what is between two steps stays in the processor's cache
_MOST = 65535
_ROOM = 0.01  # of all light: for rounding


class ColourMatrix:
    """Converts RGB to sRGB; raises ValueError for a profile that is no matrix with curves."""

    def __init__(self, profile: bytes) -> None:
        tags = _tags(profile)
        try:
            columns = np.stack([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
            curves = [_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
            matrix = np.linalg.solve(adapted(SRGB), columns)
        except (KeyError, IndexError, struct.error, np.linalg.LinAlgError) as error:
            raise ValueError("no matrix with curves") from error
        if b"A2B0" in tags or not np.isfinite(matrix).all() or not np.isfinite(curves).all():
            raise ValueError("no matrix with curves")
        light = np.stack(curves)[:, :, None] * matrix.T[:, None, :]  # (colour, value, colour of sRGB)
        least, most = light.min(axis=1), light.max(axis=1)
        low, high = least.sum(axis=0).min() - _ROOM, most.sum(axis=0).max() + _ROOM
        scale = _MOST / (high - low)
        red, green, blue = (part - start for part, start in zip(light, least, strict=True))
        both = (green[:, None] + red[None]).reshape(-1, 3)
        self._red_green = _packed(both * scale)
        self._blue = _packed((blue + (least.sum(axis=0) - low)) * scale)
        self._shown = _shown((np.arange(_MOST + 1) / scale + low).clip(0, 1))

    def __call__(self, words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
        """Return pixels of four bytes (red, green, blue, any) as sRGB, uint8 (pixels, 4)."""
        shown = np.empty(4 * len(words), np.uint8)
        index, sums, more = np.empty(_CHUNK, np.intp), np.empty(_CHUNK, np.int64), np.empty(_CHUNK, np.int64)
        parts = np.empty(4 * _CHUNK, np.intp)
        for start in range(0, len(words), _CHUNK):
            some = words[start : start + _CHUNK]
            count = len(some)
            at, light = index[:count], sums[:count]
            np.bitwise_and(some, 0xFFFF, out=at, casting="unsafe")
            self._red_green.take(at, out=light, mode="clip")
            np.bitwise_and(some >> 16, 0xFF, out=at, casting="unsafe")
            light += self._blue.take(at, out=more[:count], mode="clip")
            parts[: 4 * count] = light.view(np.uint16)
            self._shown.take(parts[: 4 * count], out=shown[4 * start : 4 * (start + count)], mode="clip")
        return shown.reshape(-1, 4)


def _packed(light: Floats) -> npt.NDArray[np.int64]:
    parts = np.zeros((len(light), 4), np.uint16)
    parts[:, :3] = light.round()
    return parts.view(np.int64).ravel()


def _shown(light: Floats) -> npt.NDArray[np.uint8]:
    """Return light of 0..1 by the curve of sRGB, in 0..255."""
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
