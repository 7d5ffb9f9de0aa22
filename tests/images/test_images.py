"""Decoding one image: formats, orientation, depth, alpha, animations, damage, bombs, and the size a model takes."""

from __future__ import annotations

import io
import struct
import time
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageCms
from torchvision.transforms import v2

from cvjobs.common.failures import CODES
from cvjobs.images.decode import Decoded, decode
from cvjobs.images.picture import Pixels
from cvjobs.images.resizing import fit
from cvjobs.images.transform import Transform
from cvjobs.images.undecodable import Undecodable

HEIGHT, WIDTH = 32, 48
AS_IS = Transform(size=(HEIGHT, WIDTH), fit="exact")
LIMIT = 80_000_000

# How an upright image is stored under each EXIF orientation.
STORED = {
    1: [],
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.TRANSPOSE],
    6: [Image.Transpose.ROTATE_90],
    7: [Image.Transpose.TRANSVERSE],
    8: [Image.Transpose.ROTATE_270],
}


def scene(height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """Return a smooth picture of which no two corners are alike."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([255 * x, 255 * y, 255 * (1 - x) * y], axis=2).round().astype(np.uint8)


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def decoded(content: bytes, transform: Transform = AS_IS, limit: int = LIMIT) -> Decoded:
    return decode(content, transform, limit)


def code(content: bytes, limit: int = LIMIT) -> str:
    """Return the error code of an image that must fail, with a detail."""
    with pytest.raises(Undecodable) as caught:
        decode(content, AS_IS, limit)
    assert caught.value.code in CODES
    assert caught.value.detail
    return caught.value.code


def close(a: npt.NDArray[Any], b: npt.NDArray[Any], tolerance: float) -> bool:
    """Whether two pictures are alike on average and nowhere very different."""
    difference = np.abs(a.astype(float) - b.astype(float))
    return bool(difference.mean() <= tolerance and difference.max() <= 12 * max(tolerance, 0.01))


def png(rows: npt.NDArray[Any], colour: int, extra: bytes = b"") -> bytes:
    """Return a PNG of 16 bits a channel, which Pillow cannot write in colour."""
    height, width = rows.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


FORMATS: dict[str, tuple[dict[str, Any], float]] = {
    "JPEG": ({"quality": 95}, 1.5),
    "PNG": ({}, 0),
    "WEBP": ({"lossless": True}, 0),
    "TIFF": ({}, 0),
    "AVIF": ({"quality": 95}, 2.0),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_comes_out_upright(format_: str, orientation: int) -> None:
    options, tolerance = FORMATS[format_]
    image = Image.fromarray(scene())
    for step in STORED[orientation]:
        image = image.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decoded(encoded(image, format_, exif=exif, **options))
    assert (found.width, found.height, found.frames) == (WIDTH, HEIGHT, 1)
    assert close(found.pixels, scene(), tolerance)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_scaled_jpeg_comes_out_upright_with_its_full_size(orientation: int) -> None:
    image = Image.fromarray(scene(320, 480))
    for step in STORED[orientation]:
        image = image.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decoded(encoded(image, "JPEG", exif=exif, quality=95), Transform(size=(32, 48), fit="exact"))
    assert (found.width, found.height) == (480, 320)
    assert close(found.pixels, scene(), 4.0)


@pytest.mark.parametrize("format_", ["BMP", "GIF", "PPM"])
def test_other_formats(format_: str) -> None:
    found = decoded(
        encoded(Image.fromarray(scene()).quantize(200), "GIF")
        if format_ == "GIF"
        else encoded(Image.fromarray(scene()), format_)
    )
    assert close(found.pixels, scene(), 6.0 if format_ == "GIF" else 0)


def ramp() -> npt.NDArray[np.uint16]:
    """Return 16-bit gray values from 0 to 65535, (HEIGHT, WIDTH)."""
    return np.linspace(0, 65535, HEIGHT * WIDTH).round().astype(np.uint16).reshape(HEIGHT, WIDTH)


def scaled(values: npt.NDArray[np.uint16]) -> Pixels:
    return np.round(values / 257).astype(np.uint8)


def test_gray_png_of_16_bits_is_scaled() -> None:
    found = decoded(encoded(Image.fromarray(ramp()), "PNG"))
    assert (found.pixels == scaled(ramp())[:, :, None]).all()


def test_colour_png_of_16_bits_is_scaled() -> None:
    values = np.stack([ramp(), ramp()[::-1], ramp()[:, ::-1]], axis=2)
    assert (decoded(png(values, 2)).pixels == scaled(values)).all()


def test_png_of_16_bits_with_alpha_is_on_white() -> None:
    values = np.stack([ramp(), ramp()[::-1], ramp()[:, ::-1], np.full_like(ramp(), 32768)], axis=2)
    expected = (values[..., :3] / 65535 * 0.5 + 0.5) * 255
    assert np.abs(decoded(png(values, 6)).pixels - expected).max() <= 1


def test_gray_png_of_16_bits_with_alpha_is_on_white() -> None:
    values = np.stack([ramp(), np.full_like(ramp(), 32768)], axis=2)
    expected = (values[..., :1] / 65535 * 0.5 + 0.5) * 255
    assert np.abs(decoded(png(values, 4)).pixels - expected).max() <= 1


@pytest.mark.parametrize("format_", ["PPM", "TIFF"])
def test_other_16_bit_gray_is_scaled(format_: str) -> None:
    found = decoded(encoded(Image.fromarray(ramp()), format_))
    assert (found.pixels == scaled(ramp())[:, :, None]).all()


def test_big_endian_16_bit_tiff_is_scaled() -> None:
    image = Image.frombytes("I;16B", (WIDTH, HEIGHT), ramp().astype(">u2").tobytes())
    assert (decoded(encoded(image, "TIFF")).pixels == scaled(ramp())[:, :, None]).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bits_have_no_known_range(mode: str) -> None:
    assert code(encoded(Image.new(mode, (8, 8)), "TIFF")) == "unsupported_mode"


def test_palette() -> None:
    image = Image.fromarray(scene()).quantize(64)
    expected = np.asarray(image.convert("RGB"))
    for format_ in ("PNG", "GIF", "TIFF", "BMP"):
        assert (decoded(encoded(image, format_)).pixels == expected).all(), format_


def test_palette_with_transparency_is_on_white() -> None:
    image = Image.new("P", (WIDTH, HEIGHT), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, WIDTH // 2, HEIGHT))
    for format_ in ("PNG", "GIF"):
        pixels = decoded(encoded(image, format_, transparency=0)).pixels
        assert (pixels[:, : WIDTH // 2] == 255).all(), format_
        assert (pixels[:, WIDTH // 2 :] == (0, 0, 255)).all(), format_


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_alpha_is_on_white(format_: str) -> None:
    values = np.dstack([np.full((HEIGHT, WIDTH, 3), (200, 0, 0), np.uint8), np.full((HEIGHT, WIDTH), 128, np.uint8)])
    options = {"lossless": True, "exact": True} if format_ == "WEBP" else {}
    found = decoded(encoded(Image.fromarray(values), format_, **options)).pixels
    assert close(found, np.broadcast_to((227, 127, 127), found.shape), 3.0 if format_ == "AVIF" else 0.5)


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_gray_with_alpha_is_on_white(format_: str) -> None:
    found = decoded(encoded(Image.new("LA", (WIDTH, HEIGHT), (0, 0)), format_))
    assert (found.pixels == 255).all()


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "BMP", "PPM"])
def test_one_bit(format_: str) -> None:
    image = Image.fromarray(scene()).convert("1")
    expected = np.repeat(np.asarray(image, np.uint8)[:, :, None] * 255, 3, axis=2)
    assert (decoded(encoded(image, format_)).pixels == expected).all()


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_gray(format_: str) -> None:
    image = Image.fromarray(scene()).convert("L")
    found = decoded(encoded(image, format_)).pixels
    assert close(found, np.repeat(np.asarray(image)[:, :, None], 3, axis=2), 2.0)


def test_cmyk_without_a_profile_by_the_plain_formula() -> None:
    image = Image.new("CMYK", (WIDTH, HEIGHT), (255, 0, 0, 51))
    found = decoded(encoded(image, "JPEG", quality=95)).pixels
    assert close(found, np.broadcast_to((0, 204, 204), found.shape), 2.0)


def test_cmyk_with_a_damaged_profile_counts_as_without() -> None:
    image = Image.new("CMYK", (WIDTH, HEIGHT), (255, 0, 0, 51))
    found = decoded(encoded(image, "JPEG", quality=95, icc_profile=b"no profile" * 30)).pixels
    assert close(found, np.broadcast_to((0, 204, 204), found.shape), 2.0)


def test_rgb_jpeg_is_not_changed_by_its_profile() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert close(decoded(encoded(Image.fromarray(scene()), "JPEG", quality=95, icc_profile=profile)).pixels, scene(), 2)


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_counts(format_: str) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    found = decoded(encoded(frames[0], format_, save_all=True, append_images=frames[1:]))
    assert found.frames == 3
    assert close(found.pixels, np.broadcast_to((250, 0, 0), found.pixels.shape), 5.0)


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_half_a_file_is_truncated(format_: str, share: float) -> None:
    content = encoded(noise(), format_)
    assert code(content[: int(len(content) * share)]) in {"truncated"} | ({"corrupt"} if format_ in LATE else set())


# Their index is at the end or their frames are read whole: a cut cannot be told from damage.
LATE = {"TIFF", "AVIF", "WEBP"}


def test_half_a_large_jpeg_is_truncated_when_scaled_too() -> None:
    content = encoded(Image.fromarray(scene(400, 600)), "JPEG")
    with pytest.raises(Undecodable) as caught:
        decode(content[: len(content) // 2], Transform(size=(8, 8), fit="exact"), LIMIT)
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "GIF", "AVIF", "TIFF"])
def test_flipped_bits_are_an_image_or_an_error_row(format_: str) -> None:
    content = encoded(noise(), format_)
    generator = np.random.default_rng(1)
    codes = set()
    for _ in range(60):
        at = int(generator.integers(len(content)))
        damaged = content[:at] + bytes([content[at] ^ (1 << int(generator.integers(8)))]) + content[at + 1 :]
        try:
            assert decoded(damaged, limit=1_000_000).pixels.shape == (HEIGHT, WIDTH, 3)
        except Undecodable as error:
            codes.add(error.code)
    assert codes <= CODES.keys()


def test_what_is_no_image() -> None:
    for content in (b"hello, world", b"<html><body></body></html>", b"\0" * 1000, b"RIFF1234WAVE"):
        assert code(content) == "not_an_image"


def test_a_name_says_nothing() -> None:
    assert (decoded(encoded(Image.fromarray(scene()), "PNG")).pixels == scene()).all()


@pytest.mark.parametrize(
    "content",
    [
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"8BPS\0\1",
        b"\0\0\1\0\1\0",
        b"%!PS-Adobe",
        b"%PDF-1.7",
        b"\xff\x0a\0",
        b"DDS |",
        b"P7\nWIDTH 1",
    ],
)
def test_other_kinds_of_images_are_unsupported(content: bytes) -> None:
    assert code(content + b"\0" * 100) == "unsupported_format"


def test_heic_is_unsupported_or_an_error_of_its_content() -> None:
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100
    assert code(content) in {"unsupported_format", "corrupt"}


def test_a_heic_that_claims_10_gigapixels_fails_at_once() -> None:
    size = b"\0\0\0\x14ispe\0\0\0\0" + struct.pack(">II", 100_000, 100_000)
    assert code(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + size + b"\0" * 100) == "too_many_pixels"


def jpeg_bomb() -> bytes:
    content = bytearray(encoded(Image.new("RGB", (64, 64)), "JPEG"))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    return bytes(content) + b"\0" * 1000


def test_a_jpeg_that_claims_4_gigapixels_fails_at_once() -> None:
    began = time.process_time()
    assert code(jpeg_bomb()) == "too_many_pixels"
    assert time.process_time() - began < 0.5


def test_a_png_that_claims_10_gigapixels_fails_at_once() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    began = time.process_time()
    assert code(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")) == (
        "too_many_pixels"
    )
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"])
def test_the_limit_is_that_of_the_user(format_: str) -> None:
    content = encoded(noise(), format_)
    assert code(content, HEIGHT * WIDTH - 1) == "too_many_pixels"
    assert decoded(content, limit=HEIGHT * WIDTH).width == WIDTH


def photo(height: int, width: int) -> Pixels:
    """Return a picture with detail at every scale, as a photo has."""
    generator = np.random.default_rng(3)
    total = np.zeros((height, width, 3))
    for size in (2, 4, 8, 16, 32, 64, 128):
        layer = Image.fromarray(generator.integers(0, 256, (size, size, 3), np.uint8))
        total += np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC), float) / size
    total -= total.min()
    return np.asarray(255 * total / total.max(), np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(500, 375), (1001, 667), (333, 999), (2048, 1536)])
@pytest.mark.parametrize("target", [32, 64, 224])
def test_a_scaled_decode_is_nearly_the_full_one(size: tuple[int, int], target: int) -> None:
    image = Image.fromarray(photo(size[1], size[0]))
    transform = Transform(size=(target, target), resize=target)
    scaled_ = decoded(encoded(image, "JPEG", quality=92), transform).pixels.astype(float).ravel()
    full = fit(np.asarray(Image.open(io.BytesIO(encoded(image, "JPEG", quality=92)))), transform).astype(float).ravel()
    assert scaled_ @ full / np.linalg.norm(scaled_) / np.linalg.norm(full) >= 0.999


@pytest.mark.parametrize(("side", "scaled_down"), [(255, False), (256, True)])
def test_a_jpeg_is_scaled_only_while_twice_the_target_is_left(side: int, scaled_down: bool) -> None:
    content = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)), "JPEG")
    found = decoded(content, Transform(size=(64, 64), resize=64)).pixels
    full = fit(np.asarray(Image.open(io.BytesIO(content))), Transform(size=(64, 64), resize=64))
    assert (np.abs(found.astype(int) - full).mean() > 1.5) == scaled_down


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(100, 151), (151, 100), (64, 64), (37, 500), (301, 224), (10, 12)])
@pytest.mark.parametrize(("resize", "crop"), [(64, 56), (65, 64), (40, 57), (57, 40)])
def test_fit_is_what_torchvision_does(interpolation: Any, shape: tuple[int, int], resize: int, crop: int) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    mode = v2.InterpolationMode(interpolation)
    reference = v2.Compose([v2.Resize(resize, mode, antialias=True), v2.CenterCrop(crop)])
    expected = reference(torch.from_numpy(pixels).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    found = fit(pixels, Transform(size=(crop, crop), resize=resize, interpolation=interpolation))
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    assert (found != expected).mean() < 0.02
