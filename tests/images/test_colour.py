"""Profiles and what stands for one: colours come out as sRGB, as littleCMS makes them."""

from __future__ import annotations

import io
import struct
import time
import zlib
from typing import Any

import image_writers
import numpy as np
import pytest
from icc_profiles import SPACES, by_little_cms, gray_profile, rgb_profile, table_profile
from image_writers import Samples, chunk
from PIL import Image, ImageCms

from cvjobs.common import rules
from cvjobs.images import colour, colour_space
from cvjobs.images.decode import decode
from cvjobs.images.picture import Pixels
from cvjobs.images.resizing import fit
from cvjobs.images.transform import Transform

NATIVE = Transform(fit="native")
LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}
WIDE = ["Display P3", "Adobe RGB", "ProPhoto", "linear", "linear Rec. 2020"]


def scene(height: int = 32, width: int = 48) -> Pixels:
    """Return a smooth picture of saturated and pale colours."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([255 * x, 255 * y, 255 * (1 - x) * y], axis=2).round().astype(np.uint8)


def written(pixels: Samples, format_: str, profile: bytes | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format_, **({"icc_profile": profile} if profile else {}), **options)
    return file.getvalue()


def shown(content: bytes, transform: Transform = NATIVE) -> Pixels:
    return decode(content, transform, 80_000_000).pixels


def near(one: Samples, other: Samples, mean: float = 1.0, most: float = 3.0) -> bool:
    difference = np.abs(one.astype(float) - other)
    return bool(difference.mean() <= mean and difference.max() <= most)


@pytest.mark.parametrize("space", WIDE)
@pytest.mark.parametrize("format_", LOSSLESS)
def test_a_profile_is_converted_as_little_cms_does(format_: str, space: str) -> None:
    profile = rgb_profile(space)
    found = shown(written(scene(), format_, profile, **LOSSLESS[format_]))
    assert near(found, by_little_cms(scene(), profile))
    assert not near(found, scene())


@pytest.mark.parametrize("space", WIDE)
@pytest.mark.parametrize("format_", ["JPEG", "AVIF"])
def test_so_it_is_where_the_format_is_lossy(format_: str, space: str) -> None:
    profile = rgb_profile(space)
    content = written(scene(), format_, profile, quality=100)
    with Image.open(io.BytesIO(content)) as image:
        assert near(shown(content), by_little_cms(np.asarray(image.convert("RGB")), profile))


def test_a_profile_of_tables_is_converted_too() -> None:
    profile = table_profile("Adobe RGB")
    assert near(shown(written(scene(), "PNG", profile)), by_little_cms(scene(), profile), most=0)


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
@pytest.mark.parametrize("format_", ["PNG", "TIFF", "JPEG"])
def test_a_profile_of_gray_is_converted(format_: str, gamma: float) -> None:
    gray = np.ascontiguousarray(scene()[..., 0])
    content = written(gray, format_, gray_profile(gamma), **({"quality": 100} if format_ == "JPEG" else {}))
    with Image.open(io.BytesIO(content)) as image:
        assert near(shown(content), by_little_cms(np.asarray(image), gray_profile(gamma)))


@pytest.mark.parametrize("profile", [rgb_profile("sRGB"), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))])
def test_srgb_by_any_maker_changes_nothing(profile: Any) -> None:
    content = profile if isinstance(profile, bytes) else profile.tobytes()
    assert (shown(written(scene(), "PNG", content)) == scene()).all()


@pytest.mark.parametrize("profile", [b"no profile" * 30, rgb_profile("ProPhoto")[:300], gray_profile(1.0), b"\0" * 128])
def test_a_profile_that_makes_no_sense_counts_as_none(profile: bytes) -> None:
    for format_, options in LOSSLESS.items():
        assert (shown(written(scene(), format_, profile, **options)) == scene()).all(), format_


def test_alpha_is_on_white_after_the_conversion() -> None:
    profile, alpha = rgb_profile("Display P3"), np.full((32, 48, 1), 128, np.uint8)
    found = shown(written(np.dstack([scene(), alpha]), "PNG", profile))
    assert near(found, by_little_cms(scene(), profile) * 128 / 255 + 127)


def test_the_first_rules_leave_profiles_alone() -> None:
    first = Transform(fit="native", pixel_rules=rules.FIRST)
    for format_, options in LOSSLESS.items():
        assert (shown(written(scene(), format_, rgb_profile("ProPhoto"), **options), first) == scene()).all()


@pytest.mark.parametrize("space", SPACES)
def test_tables_are_as_good_as_little_cms(space: str) -> None:
    profile = rgb_profile(space)
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    how = colour.conversion(profile)
    assert (how is None) == (space == "sRGB")
    if how is not None:
        assert how.matrix is not None
        assert near(how.converted(pixels), by_little_cms(pixels, profile), mean=0.1, most=1)


@pytest.mark.parametrize("transform", [Transform(size=(32, 48), fit="exact"), Transform(size=(20, 24), resize=28)])
def test_a_scaled_jpeg_is_converted_before_it_is_resized(transform: Transform) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    large = np.asarray(Image.fromarray(noise).resize((480, 320), Image.Resampling.NEAREST))
    content = written(large, "JPEG", rgb_profile("ProPhoto"), quality=95)
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (480 // (4 if transform.resize else 2), 1))
        pixels = by_little_cms(np.asarray(image), rgb_profile("ProPhoto")).astype(np.uint8)
    assert near(shown(content, transform), fit(pixels, transform), mean=0.1, most=1)


@pytest.mark.faults(minutes=1)
def test_photos_of_phones_are_nearly_as_fast_as_others() -> None:
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(0, 256, (96, 128, 3), np.uint8))
    smooth = np.asarray(small.resize((4032, 3024), Image.Resampling.BICUBIC)).astype(np.float32)
    pixels = (smooth + generator.normal(0, 5, (3024, 4032, 1))).clip(0, 255).astype(np.uint8)  # as a sensor's
    contents = [written(pixels, "JPEG", profile, quality=90) for profile in (None, rgb_profile("Display P3"))]
    for transform, least in (
        (Transform(size=(224, 224), resize=256), 0.8),
        (Transform(size=(224, 224), resize=224), 0.8),
        (Transform(size=(320, 320), fit="exact"), 0.8),
        (NATIVE, 0.4),
    ):
        seconds = [float("inf")] * 2
        for _ in range(30):  # a busy machine makes most of them slow
            for which, content in enumerate(contents):
                began = time.process_time()
                shown(content, transform)
                seconds[which] = min(seconds[which], time.process_time() - began)
        assert seconds[0] / seconds[1] >= least, f"{transform.fit} {transform.size}"


@pytest.mark.parametrize("space", ["Display P3", "ProPhoto"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_converted(orientation: int, space: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content, plain = (written(scene(), "JPEG", icc, exif=exif.tobytes()) for icc in (rgb_profile(space), None))
    assert near(shown(content), by_little_cms(shown(plain), rgb_profile(space)), most=1)


@pytest.mark.parametrize("space", ["Display P3", "ProPhoto", "linear"])
@pytest.mark.parametrize("shape", [(2, 40_000), (40_000, 2), (1, 1), (300, 257)])
def test_a_picture_of_any_shape_is_converted(shape: tuple[int, int], space: str) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    alpha = np.full((*shape, 1), 255, np.uint8)
    for content in (written(pixels, "PNG", rgb_profile(space)), written(pixels, "TIFF", rgb_profile(space))):
        assert near(shown(content), by_little_cms(pixels, rgb_profile(space)), most=1)
    content = written(np.dstack([pixels, alpha]), "PNG", rgb_profile(space))
    assert near(shown(content), by_little_cms(pixels, rgb_profile(space)), most=1)


@pytest.mark.parametrize("shape", [(90, 60), (60, 90), (300, 40), (64, 64), (10, 12)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_what_the_crop_hides_is_not_missed(shape: tuple[int, int], interpolation: Any) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    content = written(pixels, "PNG", rgb_profile("linear"))
    for resize, crop in ((32, 28), (33, 7), (100, 90), (20, 31)):
        transform = Transform(size=(crop, crop), resize=resize, interpolation=interpolation)
        assert (shown(content, transform) == fit(shown(content), transform)).all()


# What stands for a profile


def with_chunks(*chunks: bytes) -> bytes:
    return image_writers.png(scene(), 2, 8, *chunks)


P3 = chunk(b"cICP", bytes([12, 13, 0, 1]))
ADOBE = chunk(b"iCCP", b"a\0\0" + zlib.compress(rgb_profile("Adobe RGB")))
SRGB = chunk(b"sRGB", b"\0")
LINEAR = chunk(b"gAMA", struct.pack(">I", 100_000))
USUAL = chunk(b"gAMA", struct.pack(">I", 45_455))
P3_POINTS = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))


@pytest.mark.parametrize(
    ("chunks", "space"),
    [
        ((P3,), "Display P3"),
        ((P3, ADOBE), "Display P3"),
        ((ADOBE, SRGB, LINEAR), "Adobe RGB"),
        ((SRGB, LINEAR), "sRGB"),
        ((LINEAR,), "linear"),
        ((USUAL,), "sRGB"),
        ((USUAL, P3_POINTS), "Display P3"),
        ((P3_POINTS,), "sRGB"),  # points say nothing without a gamma
        ((chunk(b"gAMA", b"\0\0\0\0"),), "sRGB"),
        ((LINEAR, chunk(b"cHRM", b"\0" * 32)), "sRGB"),
        ((chunk(b"cICP", bytes([1, 13, 0, 1])),), "sRGB"),
        ((chunk(b"cICP", bytes([9, 16, 0, 1])),), "sRGB"),  # HDR has no one right picture
    ],
)
def test_the_chunks_of_a_png(chunks: tuple[bytes, ...], space: str) -> None:
    assert near(shown(with_chunks(*chunks)), by_little_cms(scene(), rgb_profile(space)))


@pytest.mark.parametrize("gamma", [1.0, 1.5, 1.8])
def test_dark_gray_is_as_light_as_the_formula_says(gamma: float) -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    said = b"gAMA" + struct.pack(">I", round(100_000 / gamma))
    found = shown(image_writers.png(gray, 0, 8, image_writers.chunk(said[:4], said[4:])))
    light = (np.arange(256) / 255) ** gamma
    exact = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert near(found.reshape(256, 3), exact[:, None], most=1)


def test_the_gamma_of_a_gray_png() -> None:
    gray = scene()[..., :1]
    found = shown(image_writers.png(gray, 0, 8, LINEAR))
    assert near(found, by_little_cms(np.ascontiguousarray(gray[..., 0]), gray_profile(1.0)))


def boxed(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + 4 + len(content)) + b"colr" + kind + content


def test_the_boxes_of_heic_and_avif() -> None:
    numbers, profile = boxed(b"nclx", struct.pack(">HHHB", 12, 13, 6, 128)), boxed(b"prof", rgb_profile("Adobe RGB"))
    assert colour_space.of_boxes(b"ftypheic" + numbers + profile) == rgb_profile("Adobe RGB")
    by_numbers = colour_space.of_boxes(b"ftypavif" + numbers)
    assert by_numbers is not None
    assert near(by_little_cms(scene(), by_numbers), by_little_cms(scene(), rgb_profile("Display P3")))
    for nothing in (b"", boxed(b"nclx", struct.pack(">HHHB", 1, 13, 6, 128)), b"colrnclx", b"colrprof"):
        assert not colour_space.of_boxes(b"ftypavif" + nothing)


def test_an_avif_whose_numbers_say_p3() -> None:
    content = written(scene(), "AVIF", quality=100)
    at = content.index(b"colrnclx") + 8
    with Image.open(io.BytesIO(content)) as image:
        stored = np.asarray(image)
    found = shown(content[:at] + struct.pack(">HH", 12, 13) + content[at + 4 :])
    assert near(found, by_little_cms(stored, rgb_profile("Display P3")))


# Other colours


def test_lab_is_converted() -> None:
    srgb, cie = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(Image.fromarray(scene()), srgb, cie, outputMode="LAB")
    assert lab is not None
    expected = ImageCms.profileToProfile(lab, cie, srgb, outputMode="RGB")
    file = io.BytesIO()
    lab.save(file, "TIFF")
    assert (shown(file.getvalue()) == np.asarray(expected)).all()


def test_cmyk_is_as_it_was() -> None:
    image = Image.fromarray(scene()).convert("CMYK")
    for profile in (None, b"no profile" * 30, rgb_profile("Adobe RGB")):
        file = io.BytesIO()
        image.save(file, "TIFF", **({"icc_profile": profile} if profile else {}))
        first = shown(file.getvalue(), Transform(fit="native", pixel_rules=rules.FIRST))
        assert (shown(file.getvalue()) == first).all()
