"""Odd images: every format, mode, depth, byte order, profile and photometric interpretation, and what they show.

``odd_image`` makes one by chance.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from icc_profiles import SPACES, by_little_cms, gray_profile, rgb_profile, table_profile
from image_writers import (
    ASSOCIATED,
    BLACK_IS_ZERO,
    CIELAB,
    CMYK,
    COLOURS,
    MASK,
    PALETTE,
    RGB,
    STRAIGHT,
    WHITE_IS_ZERO,
    YCBCR,
    Samples,
    chunk,
    png,
    pnm,
    tiff,
)
from PIL import Image, ImageCms


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
