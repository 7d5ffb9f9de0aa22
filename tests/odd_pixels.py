"""Odd images: every format, mode, depth, byte order, profile and photometric interpretation, and what they show.

``odd_image`` makes one by chance; ``tiff``, ``png`` and ``pnm`` write what Pillow cannot, from samples.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

Samples = npt.NDArray[Any]
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR, CIELAB = 0, 1, 2, 3, 4, 5, 6, 8
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, MASK: 1, CMYK: 4, YCBCR: 3, CIELAB: 3}
NO_ALPHA, ASSOCIATED, STRAIGHT = None, 1, 2


@dataclass(frozen=True, kw_only=True)
class OddImage:
    """One image: what it is in words, its bytes, and what it shows.

    ``shown`` is sRGB on white, 0..255 (height, width, 3); ``bound`` the largest difference that rounding and the
    encoder allow; ``codes`` what the image may fail with instead, empty where it must be decoded.
    """

    name: str
    content: bytes
    shown: npt.NDArray[np.float64]
    bound: float = 1.0
    codes: frozenset[str] = frozenset()


# Files from samples


def tiff(  # noqa: PLR0912, PLR0913 - as many tags
    samples: Samples,
    photometric: int,
    *,
    bits: int,
    big: bool = False,
    extra: int | None = None,
    planar: bool = False,
    deflate: bool = False,
    predictor: bool = False,
    tile: int = 0,
    rows: int = 0,
    reversed_bits: bool = False,
    kind: int = 1,
    tags: dict[int, tuple[str, Sequence[Any]]] | None = None,
) -> bytes:
    """Return a TIFF of samples (height, width, channels).

    Args:
        samples: Unsigned, signed or float values of ``bits`` bits.
        photometric: How they show colours.
        bits: Of one sample.
        big: Whether the byte order is big-endian.
        extra: What the channel behind the colours is (0 nothing known, 1 associated alpha, 2 straight alpha).
        planar: Whether each channel is stored by itself.
        deflate: Whether it is compressed.
        predictor: Whether the differences of neighbours are compressed.
        tile: The side of its tiles, 0 for strips.
        rows: Of a strip, 0 for all.
        reversed_bits: Whether the lowest bit of each byte comes first.
        kind: The sample format: 1 unsigned, 2 signed, 3 float.
        tags: More tags, as number to (type, values); types are B, H, I, A (text) and R (pairs).
    """
    order = ">" if big else "<"
    height, width, channels = samples.shape
    values: dict[int, tuple[str, Sequence[Any]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * channels),
        259: ("H", [8 if deflate else 1]),
        262: ("H", [photometric]),
        277: ("H", [channels]),
        284: ("H", [2 if planar else 1]),
    }
    if reversed_bits:
        values[266] = ("H", [2])
    if predictor:
        values[317] = ("H", [2])
    if kind != 1:
        values[339] = ("H", [kind] * channels)
    if extra is not None:
        values[338] = ("H", [extra])
    planes = np.split(samples, channels, axis=2) if planar else [samples]
    chunks = []
    for plane in planes:
        if tile:
            down, right = -height % tile, -width % tile
            padded = np.pad(plane, ((0, down), (0, right), (0, 0)))
            for top in range(0, height, tile):
                for left in range(0, width, tile):
                    chunks.append(padded[top : top + tile, left : left + tile])
        else:
            chunks += [plane[top : top + (rows or height)] for top in range(0, height, rows or height)]
    packed = [_packed(chunk, bits, order, predictor) for chunk in chunks]
    if deflate:
        packed = [zlib.compress(one) for one in packed]
    if reversed_bits:
        packed = [bytes(int(f"{byte:08b}"[::-1], 2) for byte in one) for one in packed]
    if tile:
        values |= {322: ("I", [tile]), 323: ("I", [tile]), 325: ("I", [len(one) for one in packed])}
    else:
        values |= {278: ("I", [rows or height]), 279: ("I", [len(one) for one in packed])}
    values |= tags or {}
    return _tiff_file(order, values, packed, 324 if tile else 273)


def _packed(chunk: Samples, bits: int, order: str, predictor: bool) -> bytes:
    """Return the rows of a strip or tile as bytes; what is no whole byte is padded at the end of each row."""
    if predictor:
        chunk = np.concatenate([chunk[:, :1], chunk[:, 1:] - chunk[:, :-1]], axis=1)
    if bits >= 8 and bits % 8 == 0:
        return chunk.astype(chunk.dtype.newbyteorder(">" if order == ">" else "<")).tobytes()
    lines = chunk.reshape(len(chunk), -1).astype(np.uint32)
    single = (lines[:, :, None] >> np.arange(bits - 1, -1, -1, dtype=np.uint32)) & 1
    return np.packbits(single.reshape(len(chunk), -1).astype(np.uint8), axis=1).tobytes()


def _tiff_file(order: str, values: dict[int, tuple[str, Sequence[Any]]], packed: list[bytes], offsets: int) -> bytes:
    places, at = [], 8
    for one in packed:
        places.append(at)
        at += len(one) + len(one) % 2
    values[offsets] = ("I", places)
    body = b"".join(one + b"\0" * (len(one) % 2) for one in packed)
    directory = struct.pack(order + "H", len(values))
    start = 8 + len(body)
    behind, after = b"", start + 2 + 12 * len(values) + 4
    kinds = {"B": (7, "B"), "H": (3, "H"), "I": (4, "I"), "A": (2, "B"), "R": (5, "I")}
    for tag in sorted(values):
        kind, found = values[tag]
        number, letter = kinds[kind]
        content = struct.pack(f"{order}{len(found)}{letter}", *found)
        count = len(found) // 2 if kind == "R" else len(found)
        if len(content) <= 4:
            place = content.ljust(4, b"\0")
        else:
            place = struct.pack(order + "I", after + len(behind))
            behind += content + b"\0" * (len(content) % 2)
        directory += struct.pack(order + "HHI", tag, number, count) + place
    magic = b"MM\0*" if order == ">" else b"II*\0"
    return magic + struct.pack(order + "I", start) + body + directory + b"\0\0\0\0" + behind


def png(samples: Samples, colour: int, bits: int, *extra: bytes) -> bytes:
    """Return a PNG of samples (height, width, channels); ``extra`` are chunks before the pixels."""
    height, width = samples.shape[:2]
    lines = b"".join(b"\0" + _packed(row[None], bits, ">", False) for row in samples)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def pnm(samples: Samples, most: int) -> bytes:
    """Return a PGM or PPM of samples (height, width, 1 or 3) from 0 to ``most``."""
    height, width, channels = samples.shape
    kind = "u1" if most < 256 else ">u2"
    return b"P%d\n%d %d\n%d\n" % (5 if channels == 1 else 6, width, height, most) + samples.astype(kind).tobytes()


# Profiles

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
    made = ImageCms.profileToProfile(image, _opened(profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert made is not None
    return np.asarray(made).astype(np.float64)


def _three(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values if values.ndim == 3 else np.repeat(values[:, :, None], 3, axis=2)


# By chance


def odd_image(generator: np.random.Generator) -> OddImage:
    """Return one odd image."""
    made: OddImage = generator.choice(np.array([odd_tiff, odd_png, odd_pnm, odd_photo], object))(generator)
    return made


def _scene(generator: np.random.Generator, channels: int) -> npt.NDArray[np.float64]:
    """Return a smooth picture with noise and corners of 0 and 1: float (height, width, channels) in 0..1."""
    height, width = (int(n) for n in generator.integers(3, 40, 2))
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    ways = generator.uniform(-1, 1, (3, channels))
    values = 0.5 + ways[0] * (x[..., None] - 0.5) + ways[1] * (y[..., None] - 0.5)
    values += 0.05 * generator.standard_normal(values.shape)
    values[0, 0], values[-1, -1] = 0, 1
    found: npt.NDArray[np.float64] = values.clip(0, 1)
    return found


def _quantised(values: npt.NDArray[np.float64], bits: int) -> Samples:
    kind = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
    made: Samples = (values * (2**bits - 1)).round().astype(kind)
    return made


def on_white(shown: npt.NDArray[np.float64], alpha: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return colours (height, width, 3) of 0..255 with straight alpha of 0..1 over white."""
    return shown * alpha + 255 * (1 - alpha)


def odd_tiff(generator: np.random.Generator) -> OddImage:  # noqa: PLR0912, PLR0915 - as many choices
    """Return a TIFF of any photometric interpretation, depth, byte order and layout."""
    photometric = int(generator.choice(list(COLOURS)))
    bits = int(generator.choice([1, 2, 4, 8, 8, 12, 16, 16, 32] if COLOURS[photometric] == 1 else [4, 8, 8, 16, 16]))
    used = int(generator.choice([10, 12, 14])) if bits == 16 and generator.random() < 0.3 else bits
    extra = generator.choice(np.array([None, None, 0, ASSOCIATED, STRAIGHT], object))
    if photometric in (PALETTE, MASK, YCBCR, CIELAB) or bits < 8:
        extra = None
    how = {
        "big": bool(generator.random() < 0.5),
        "planar": bool(generator.random() < 0.2),
        "deflate": bool(generator.random() < 0.4),
        "tile": 16 * int(generator.random() < 0.2),
        "rows": int(generator.integers(0, 5)),
    }
    how["reversed_bits"] = bits <= 8 and bool(generator.random() < 0.1)
    how["predictor"] = how["deflate"] and bits in (8, 16) and photometric != PALETTE and bool(generator.random() < 0.5)
    colours = COLOURS[photometric]
    values = _scene(generator, colours)
    samples = _quantised(values, used)
    tags: dict[int, tuple[str, Sequence[Any]]] = {}
    if photometric == PALETTE:
        palette = generator.integers(0, 256, (3, 2 ** min(bits, 12)), np.uint16)
        samples = (samples.astype(np.uint32) & (2 ** min(bits, 12) - 1)).astype(samples.dtype)
        tags[320] = ("H", (palette * 257).ravel().tolist())
        shown = palette[:, samples[..., 0]].transpose(1, 2, 0).astype(np.float64)
    else:
        shown = shown_by(samples, photometric, used)
    if photometric == YCBCR:
        tags[530] = ("H", [1, 1])
    if used != bits:
        tags[281] = ("H", [2**used - 1] * (colours + (extra is not None)))
    profile = None
    if photometric in (RGB, BLACK_IS_ZERO) and generator.random() < 0.4:
        space = str(generator.choice(list(SPACES)))
        profile = rgb_profile(space) if photometric == RGB else gray_profile(float(generator.choice([1.0, 1.8, 2.2])))
        tags[34675] = ("B", list(profile))
    if extra is not None:
        alpha = _quantised(np.clip(_scene_like(generator, samples.shape[:2]), 0.2, 1), used)
        share = alpha / (2**used - 1)
        if extra == ASSOCIATED:
            if photometric == WHITE_IS_ZERO:
                samples = (2**used - 1 - ((2**used - 1 - samples) * share).round()).astype(samples.dtype)
            else:
                samples = (samples * share).round().astype(samples.dtype)
            shown = shown_by(samples, photometric, used, share)
        samples = np.concatenate([samples, alpha.astype(samples.dtype)], axis=2)
    if profile is not None:
        eight = shown.round().astype(np.uint8)
        shown = by_little_cms(eight if photometric == RGB else np.ascontiguousarray(eight[..., 0]), profile)
    if extra in (ASSOCIATED, STRAIGHT):
        shown = on_white(shown, share)
    content = tiff(samples, photometric, bits=bits, extra=extra, tags=tags, **how)  # type: ignore[arg-type]
    words = " ".join(name for name, value in how.items() if value)
    name = (
        f"TIFF photometric {photometric}, {used} of {bits} bits, extra {extra}, {words}, profile {profile is not None}"
    )
    bound = 3.0 if profile is not None or photometric == YCBCR else 2.0
    if photometric == CIELAB:
        bound = 5.0  # a step of 1 in a or b is several in colours
    if extra == ASSOCIATED:
        bound += 4
    return OddImage(name=name, content=content, shown=shown, bound=bound, codes=frozenset({"unsupported_mode"}))


def _scene_like(generator: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    return generator.uniform(0, 1, (*shape[:2], 1))


def shown_by(samples: Samples, photometric: int, bits: int, alpha: Any = 1.0) -> npt.NDArray[np.float64]:
    """Return the colours of samples, sRGB 0..255; with associated alpha (0..1) those that were multiplied by it."""
    values = samples.astype(np.float64) / (2**bits - 1)
    if photometric == WHITE_IS_ZERO:
        values = 1 - values
    values = np.asarray(np.minimum(values / alpha, 1))
    if photometric == CMYK:
        return np.asarray(255 * (1 - values[..., :3]) * (1 - values[..., 3:]))
    if photometric == YCBCR:
        y, blue, red = 255 * values[..., 0], 255 * values[..., 1] - 128, 255 * values[..., 2] - 128
        made = np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], axis=2)
        return np.asarray(made.clip(0, 255))
    if photometric == CIELAB:
        eight = (255 * values).round().astype(np.uint8)
        if bits > 8:
            signed = (65535 * values[..., 1:]).round().astype(np.uint16).view(np.int16) / 256
            eight[..., 1:] = signed.round().clip(-128, 127).astype(np.int8).view(np.uint8)
        image = Image.frombytes("LAB", eight.shape[1::-1], eight.tobytes())
        made_ = ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        assert made_ is not None
        return np.asarray(made_).astype(np.float64)
    return 255 * (np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values)


def odd_png(generator: np.random.Generator) -> OddImage:
    """Return a PNG of any colour type and depth, with or without transparency, profile and significant bits."""
    colour = int(generator.choice([0, 2, 3, 4, 6]))
    bits = int(generator.choice({0: [1, 2, 4, 8, 16, 16], 3: [1, 2, 4, 8]}.get(colour, [8, 16])))
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    used = int(generator.choice([10, 12, 14])) if bits == 16 and generator.random() < 0.4 else bits
    samples = _quantised(_scene(generator, channels), used)
    extra, alpha = [], None
    most = 2**used - 1
    if used != bits:
        # Stored as the format wants it, in the upper bits, or as careless cameras do, in the lower ones.
        if generator.random() < 0.5:
            extra.append(chunk(b"sBIT", bytes([used] * channels)))
            samples = (samples << (bits - used)) | (samples >> (2 * used - bits))
            most = 2**bits - 1
        else:
            extra.append(chunk(b"sBIT", bytes([used] * channels)))
    if colour == 3:
        palette = generator.integers(0, 256, (2**bits, 3), np.uint8)
        extra.append(chunk(b"PLTE", palette.tobytes()))
        shown = palette[samples[..., 0]].astype(np.float64)
        if generator.random() < 0.5:
            opacity = generator.integers(0, 256, 2**bits, np.uint8)
            extra.append(chunk(b"tRNS", opacity.tobytes()))
            alpha = opacity[samples[..., :1]] / 255
    else:
        values = samples / most * 255
        shown = values[..., :3] if channels >= 3 else np.repeat(values[..., :1], 3, axis=2)
        if channels in (2, 4):
            alpha = samples[..., -1:] / most
        elif generator.random() < 0.3:
            key = samples[samples.shape[0] // 2, samples.shape[1] // 2]
            extra.append(chunk(b"tRNS", key.astype(">u2").tobytes()))
            alpha = (samples != key).any(axis=2, keepdims=True).astype(np.float64)
    profile = None
    if generator.random() < 0.4:
        gray = channels < 3 and colour != 3
        space = str(generator.choice(list(SPACES)))
        profile = gray_profile(float(generator.choice([1.0, 1.8, 2.2]))) if gray else rgb_profile(space)
        extra.insert(0, chunk(b"iCCP", b"odd\0\0" + zlib.compress(profile)))
        eight = shown.round().astype(np.uint8)
        shown = by_little_cms(np.ascontiguousarray(eight[..., 0]) if gray else eight, profile)
    if alpha is not None:
        shown = on_white(shown, alpha)
    name = f"PNG colour type {colour}, {used} of {bits} bits, alpha {alpha is not None}, profile {profile is not None}"
    bound = 1.01 if profile is None else 3.0
    return OddImage(name=name, content=png(samples, colour, bits, *extra), shown=shown, bound=bound)


def odd_pnm(generator: np.random.Generator) -> OddImage:
    """Return a PGM or PPM whose largest value is any."""
    channels = int(generator.choice([1, 3]))
    most = int(generator.choice([1, 3, 15, 100, 255, 256, 1023, 4095, 16383, 65535]))
    samples = (_scene(generator, channels) * most).round().astype(np.uint16)
    shown = np.repeat(samples / most * 255, 3 // channels, axis=2)
    return OddImage(name=f"PNM of {channels} channels to {most}", content=pnm(samples, most), shown=shown)


def odd_photo(generator: np.random.Generator) -> OddImage:
    """Return a JPEG, WebP, AVIF or PNG written by Pillow, with any profile, also a damaged one."""
    format_ = str(generator.choice(["JPEG", "WEBP", "AVIF", "PNG", "TIFF"]))
    gray = format_ != "WEBP" and bool(generator.random() < 0.3)
    values = _quantised(_scene(generator, 1 if gray else 3), 8)
    pixels = values[..., 0] if gray else values
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100},
    }
    kind = str(generator.choice(["matrix", "table", "damaged", "other", "none"]))
    space = str(generator.choice(list(SPACES)))
    profile: bytes | None = None
    if kind in ("matrix", "table") and gray:
        profile = gray_profile(float(generator.choice([1.0, 1.8, 2.2])))
    elif kind == "matrix":
        profile = rgb_profile(space)
    elif kind == "table":
        profile = table_profile(space)
    written = profile
    if kind == "damaged":
        content = bytearray(rgb_profile(space))
        content[36:40] = b"oops"
        written = bytes(content)
    elif kind == "other":  # a profile that says nothing of such pixels
        written = rgb_profile(space) if gray else gray_profile(2.2)
    file = io.BytesIO()
    more: dict[str, Any] = {} if written is None else {"icc_profile": written}
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format_, **options.get(format_, {}), **more)
    with Image.open(io.BytesIO(file.getvalue())) as image:
        stored = np.asarray(image.convert("L" if gray else "RGB"))
    shown = by_little_cms(stored, profile)
    return OddImage(name=f"{format_}, {space} {kind}, gray {gray}", content=file.getvalue(), shown=shown, bound=3.0)
