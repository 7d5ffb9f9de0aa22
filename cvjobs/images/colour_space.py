"""What a file says its colours are, as an ICC profile: its own, or one made of the numbers that stand for one.

Where several are there the one counts that the format says: in a PNG cICP, then iCCP, sRGB, and gAMA with cHRM. What
says sRGB, or nothing that can be made sense of, is None.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

Point = tuple[float, float]

_HEADER = 4 << 20  # bytes in which a box is looked for
_D65 = (0.3127, 0.3290)
SRGB = (_D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_SD = (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
# H.273: the primaries and the curves that stand for numbers; those of video are shown by the curve of sRGB.
_PRIMARIES = {
    1: SRGB,
    5: (_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: _SD,
    7: _SD,
    9: (_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: ((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: (_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_SRGB_CURVE = 0.0
_CURVES = {**dict.fromkeys((1, 6, 13, 14, 15), _SRGB_CURVE), 4: 2.2, 5: 2.8, 8: 1.0}
_NEAR = 0.05  # a gamma that differs by no more than this share counts as that of sRGB, as in libpng
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])


def of_image(image: Image.Image, content: bytes) -> bytes | None:
    """Return the profile of an image that Pillow opened; ``content`` is its file."""
    if image.format == "PNG":
        return _of_png(image, content)
    if image.format == "AVIF":
        return of_boxes(content)
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) else None


def of_boxes(content: bytes) -> bytes | None:
    """Return the profile of a HEIC or AVIF: the first of its `colr` boxes, where an ICC profile goes before numbers."""
    numbers = None
    for found in re.finditer(rb"colr(prof|rICC|nclx)", content[:_HEADER]):
        start, body = found.start() - 4, found.end()
        end = start + int.from_bytes(content[max(start, 0) : start + 4], "big")
        if found[1] != b"nclx":
            return content[body:end]
        if numbers is None and len(content) >= body + 4:
            numbers = struct.unpack_from(">HH", content, body)
    return None if numbers is None else _by_numbers(*numbers)


def _of_png(image: Image.Image, content: bytes) -> bytes | None:
    chunks = dict(_png_chunks(content))
    if len(chunks.get(b"cICP", b"")) >= 4:
        return _by_numbers(chunks[b"cICP"][0], chunks[b"cICP"][1])
    if b"iCCP" in chunks:
        profile = image.info.get("icc_profile")
        return profile if isinstance(profile, bytes) else None
    if b"sRGB" in chunks or len(chunks.get(b"gAMA", b"")) != 4:
        return None
    gamma = int.from_bytes(chunks[b"gAMA"], "big") / 100_000
    if not 0.05 <= gamma <= 5:
        return None
    near = abs(gamma * 2.2 - 1) <= _NEAR
    curve = _SRGB_CURVE if near else 1 / gamma
    points = SRGB
    if len(chunks.get(b"cHRM", b"")) == 32:
        numbers = [number / 100_000 for number in struct.unpack(">8i", chunks[b"cHRM"])]
        points = tuple(zip(numbers[::2], numbers[1::2], strict=True))  # type: ignore[assignment]
    gray = content[25] in (0, 4)
    return gray_profile(curve) if gray else rgb_profile(points, curve)


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks before the pixels of a PNG: their kind and content."""
    at = 8
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind in (b"IDAT", b"IEND"):
            return
        yield kind, content[at + 8 : at + 8 + length]
        at += 12 + length


def significant_bits(content: bytes) -> int | None:
    """Return how many bits of each sample of a PNG are significant (sBIT), None where it does not say."""
    found = dict(_png_chunks(content)).get(b"sBIT")
    return max(found) if found else None


def _by_numbers(primaries: int, curve: int) -> bytes | None:
    points, gamma = _PRIMARIES.get(primaries), _CURVES.get(curve)
    if points is None or gamma is None or (points == SRGB and gamma == _SRGB_CURVE):
        return None
    return rgb_profile(points, gamma)


def rgb_profile(points: tuple[Point, ...], gamma: float) -> bytes | None:
    """Return a profile of white, red, green and blue (x, y) and a gamma, 0 for the curve of sRGB.

    None where no colours are made of such points.
    """
    try:
        columns = adapted(points)
    except (ZeroDivisionError, np.linalg.LinAlgError):
        return None
    if not np.isfinite(columns).all() or np.abs(columns).max() > 4:
        return None
    tags = {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns.T, strict=True)}
    return _profile(b"RGB ", {**tags, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma))})


def adapted(points: tuple[Point, ...]) -> npt.NDArray[np.float64]:
    """Return the XYZ of red, green and blue, in columns, seen in the light (D50) that profiles are made for."""
    white, *colours = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in points)
    columns = np.stack(colours, axis=1)
    columns = columns * np.linalg.solve(columns, white)
    light = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    return np.asarray(np.linalg.solve(_BRADFORD, light @ _BRADFORD) @ columns)


def gray_profile(gamma: float) -> bytes:
    """Return a profile of gray by a gamma, 0 for the curve of sRGB."""
    return _profile(b"GRAY", {b"kTRC": _curve(gamma)})


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(65536 * float(value)) for value in values))


def _xyz(values: npt.NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*values)


def _curve(gamma: float) -> bytes:
    if gamma != _SRGB_CURVE:
        return b"para\0\0\0\0\0\0\0\0" + _fixed(gamma)
    return b"para\0\0\0\0\0\3\0\0" + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def _profile(colours: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return the bytes of an ICC profile, version 4, of a display."""
    tags = {b"wtpt": _xyz(_D50), **tags}
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"", 0x04400000, b"mntr", colours, b"XYZ ")
    header = header.ljust(36, b"\0") + b"acsp".ljust(32, b"\0") + _fixed(*_D50)
    return header.ljust(128, b"\0") + table + body
