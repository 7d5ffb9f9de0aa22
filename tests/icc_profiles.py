"""ICC profiles of RGB and gray, made of numbers, and what littleCMS makes of pixels by one."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

Samples = npt.NDArray[Any]
PRIMARIES = {
    "sRGB": ((0.3127, 0.3290), (0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    "Display P3": ((0.3127, 0.3290), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    "Adobe RGB": ((0.3127, 0.3290), (0.64, 0.33), (0.21, 0.71), (0.15, 0.06)),
    "ProPhoto": ((0.3457, 0.3585), (0.734699, 0.265301), (0.159597, 0.840403), (0.036598, 0.000105)),
    "Rec. 2020": ((0.3127, 0.3290), (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
}
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
SPACES: dict[str, tuple[str, float | tuple[float, ...]]] = {
    "sRGB": ("sRGB", SRGB_CURVE),
    "Display P3": ("Display P3", SRGB_CURVE),
    "Adobe RGB": ("Adobe RGB", 563 / 256),
    "ProPhoto": ("ProPhoto", 1.8),
    "linear": ("sRGB", 1.0),
    "linear Rec. 2020": ("Rec. 2020", 1.0),
    "gamma 2.2": ("sRGB", 2.2),
}
D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def rgb_profile(space: str) -> bytes:
    """Return an ICC profile of RGB by primaries and a curve."""
    primaries, curve = SPACES[space]
    white, *colours = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in PRIMARIES[primaries])
    columns = np.stack(colours, axis=1)
    columns = columns * np.linalg.solve(columns, white)
    adapt = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ D50) / (_BRADFORD @ white)) @ _BRADFORD
    columns = adapt @ columns
    tags = {b"rXYZ": _xyz(columns[:, 0]), b"gXYZ": _xyz(columns[:, 1]), b"bXYZ": _xyz(columns[:, 2])}
    return _profile(b"RGB ", {**tags, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(curve))})


def gray_profile(gamma: float) -> bytes:
    """Return an ICC profile of gray by a gamma."""
    return _profile(b"GRAY", {b"kTRC": _curve(gamma)})


def table_profile(space: str, points: int = 9) -> bytes:
    """Return an ICC profile of RGB by a table from colours to Lab, as scanners and printers have."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 255, points)] * 3, indexing="ij"), axis=-1).reshape(1, -1, 3)
    shown = Image.fromarray(grid.round().astype(np.uint8))
    lab = ImageCms.profileToProfile(shown, _opened(rgb_profile(space)), ImageCms.createProfile("LAB"), outputMode="LAB")
    assert lab is not None
    values = (np.asarray(lab).reshape(-1, 3) ^ np.array([0, 128, 128], np.uint8)).astype(np.uint16) * 256
    identity = struct.pack(">9i", *(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x10000))
    ends = struct.pack(">2H", 0, 65535)
    tables = ends * 3 + values.astype(">u2").tobytes() + ends * 3
    found = b"mft2\0\0\0\0" + bytes([3, 3, points, 0]) + identity + struct.pack(">2H", 2, 2) + tables
    return _profile(b"RGB ", {b"A2B0": found}, b"Lab ", b"scnr")


def _xyz(values: npt.NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))


def _curve(curve: float | tuple[float, ...]) -> bytes:
    if isinstance(curve, tuple):
        return b"para\0\0\0\0\0\3\0\0" + struct.pack(">5i", *(round(65536 * value) for value in curve))
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * curve)) + b"\0\0"


def _profile(colours: bytes, tags: dict[bytes, bytes], connected: bytes = b"XYZ ", device: bytes = b"mntr") -> bytes:
    name = b"odd"
    named = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + b"\0" * 79
    tags = {b"desc": named.ljust(-(-len(named) // 4) * 4, b"\0"), b"wtpt": _xyz(D50), **tags}
    table, content, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, value in tags.items():
        table += tag + struct.pack(">II", at + len(content), len(value))
        content += value
    header = struct.pack(">I4sI", at + len(content), b"", 0x02400000) + device + colours + connected
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    header += struct.pack(">3i", *(round(65536 * value) for value in D50))
    return header.ljust(128, b"\0") + table + content


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


def by_little_cms(pixels: Samples, profile: bytes | None) -> npt.NDArray[np.float64]:
    """Return what littleCMS makes of 8-bit RGB (height, width, 3) or gray (height, width) by a profile."""
    if profile is None:
        return _three(pixels.astype(np.float64))
    image = Image.fromarray(np.ascontiguousarray(pixels))
    flags = ImageCms.Flags.NOOPTIMIZE if image.mode == "L" else ImageCms.Flags.NONE  # which makes dark grays darker
    target = ImageCms.createProfile("sRGB")
    made = ImageCms.profileToProfile(image, _opened(profile), target, outputMode="RGB", flags=flags)
    assert made is not None
    return np.asarray(made).astype(np.float64)


def _three(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values if values.ndim == 3 else np.repeat(values[:, :, None], 3, axis=2)
