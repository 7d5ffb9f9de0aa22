"""Depth and photometric interpretation: every kind equals its 8-bit form, whatever tag says the bits."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from icc_profiles import rgb_profile
from image_writers import BLACK_IS_ZERO, MASK, PALETTE, RGB, WHITE_IS_ZERO, YCBCR, Samples, chunk, png, pnm, tiff
from PIL import Image

from cvjobs.common import rules
from cvjobs.images import decode as decoding
from cvjobs.images.dark_images import DarkImages
from cvjobs.images.decode import Decoded, decode
from cvjobs.images.transform import Transform
from cvjobs.images.undecodable import Undecodable

NATIVE = Transform(fit="native")
Tags = dict[int, tuple[str, Sequence[Any]]]
# How an upright image is stored under each EXIF orientation but the first.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def ramp(bits: int, channels: int = 1) -> Samples:
    """Return values from 0 to the most of so many bits, (24, 40, channels), of which no two channels are alike."""
    values = np.linspace(0, 2**bits - 1, 24 * 40).round().astype(np.uint16).reshape(24, 40)
    return np.stack([values, values[::-1], values[:, ::-1], values[::-1, ::-1]][:channels], axis=2)


def eight(values: Samples, bits: int) -> Samples:
    return np.broadcast_to(np.round(values * (255 / (2**bits - 1))), (*values.shape[:2], 3))


def shown(content: bytes, transform: Transform = NATIVE) -> Decoded:
    return decode(content, transform, 1_000_000)


def near(found: Samples, expected: Samples, most: float = 1) -> bool:
    return bool(np.abs(found.astype(float) - expected).max() <= most)


SAYING: list[Tags] = [
    {281: ("H", [4095])},
    {281: ("H", [4095] * 3)},
    {341: ("H", [4095])},
    {50717: ("H", [4095])},
    {270: ("A", b'<OME><Pixels SignificantBits="12" Type="uint16"/></OME>\0')},
]


@pytest.mark.parametrize("tags", SAYING)
@pytest.mark.parametrize(("photometric", "channels"), [(BLACK_IS_ZERO, 1), (RGB, 3)])
@pytest.mark.parametrize("big", [False, True])
def test_the_tag_that_says_the_bits(tags: Tags, photometric: int, channels: int, big: bool) -> None:
    found = shown(tiff(ramp(12, channels), photometric, bits=16, big=big, tags=tags))
    assert near(found.pixels, eight(ramp(12, channels), 12))
    assert found.unsaid_bits == 0


@pytest.mark.parametrize("bits", [10, 14])
def test_other_bits_than_12(bits: int) -> None:
    content = tiff(ramp(bits), WHITE_IS_ZERO, bits=16, tags={281: ("H", [2**bits - 1])})
    assert near(shown(content).pixels, 255 - eight(ramp(bits), bits))


def test_a_largest_value_that_is_no_number_of_bits_is_that_of_the_picture() -> None:
    found = shown(tiff(ramp(12), BLACK_IS_ZERO, bits=16, tags={281: ("H", [3011])}))
    assert near(found.pixels, eight(ramp(12), 16))
    assert found.unsaid_bits == 12


def test_a_tag_that_a_sample_contradicts_says_nothing() -> None:
    assert near(shown(tiff(ramp(16), BLACK_IS_ZERO, bits=16, tags={281: ("H", [4095])})).pixels, eight(ramp(16), 16))


def test_bits_are_what_the_user_says_where_no_tag_does() -> None:
    transform = Transform(fit="native", bits=12)
    assert near(shown(tiff(ramp(12), BLACK_IS_ZERO, bits=16), transform).pixels, eight(ramp(12), 12))
    assert near(shown(tiff(ramp(16), BLACK_IS_ZERO, bits=16), transform).pixels, eight(ramp(16), 16))
    tagged = tiff(ramp(10), BLACK_IS_ZERO, bits=16, tags={281: ("H", [1023])})
    assert near(shown(tagged, transform).pixels, eight(ramp(10), 10))
    assert near(shown(png(ramp(12), 0, 16), transform).pixels, eight(ramp(12), 12))


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3)])
def test_significant_bits_of_a_png(colour: int, channels: int) -> None:
    said, values = chunk(b"sBIT", b"\x0c" * channels), ramp(12, channels)
    assert near(shown(png(values, colour, 16, said)).pixels, eight(values, 12))
    assert near(shown(png(values << 4 | values >> 8, colour, 16, said)).pixels, eight(values, 12))  # as the format says
    assert shown(png(values, colour, 16)).unsaid_bits == 12


def test_the_largest_value_of_a_pgm() -> None:
    assert near(shown(pnm(ramp(12), 4095)).pixels, eight(ramp(12), 12))
    assert near(shown(pnm(ramp(12, 3), 4095)).pixels, eight(ramp(12, 3), 12))


@pytest.mark.parametrize("samples", [ramp(16), np.zeros((24, 40, 1), np.uint16), ramp(16) // 2])
def test_what_is_bright_or_black_needs_no_bits(samples: Samples) -> None:
    assert shown(tiff(samples, BLACK_IS_ZERO, bits=16)).unsaid_bits == 0


def test_dark_images_are_named() -> None:
    dark = DarkImages()
    dark.add(11, "a.tif")
    assert str(dark).startswith("1 image of 16 bits (a.tif) uses at most 12 of them")
    dark.add(9, "b.tif")
    assert str(dark).startswith("2 images of 16 bits (first a.tif) use at most 12 of them")
    assert str(dark).endswith("--bits 12")


def test_bits_are_recorded_where_they_are_set() -> None:
    made = Transform(size=(4, 4), bits=12)
    assert Transform.load(made.record()) == made
    assert "bits" not in Transform(size=(4, 4)).record()
    assert Transform(size=(4, 4)).like(made.record()).bits == 12
    assert Transform(size=(4, 4)).like(made.record(), 14).bits == 14


# Interpretations


@pytest.mark.parametrize("how", [{}, {"planar": True}, {"deflate": True}, {"deflate": True, "predictor": True}])
@pytest.mark.parametrize("layout", [{}, {"rows": 5}, {"tile": 16}])
@pytest.mark.parametrize("big", [False, True])
def test_colours_of_16_bits_in_every_layout(how: dict[str, Any], layout: dict[str, Any], big: bool) -> None:
    content = tiff(ramp(16, 3), RGB, bits=16, big=big, **how, **layout)
    assert near(shown(content).pixels, eight(ramp(16, 3), 16), 0.5)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO, MASK])
def test_gray_of_every_depth(photometric: int, bits: int) -> None:
    samples = ramp(bits).astype(np.uint8 if bits <= 8 else np.uint16)
    expected = eight(samples, bits)
    found = shown(tiff(samples, photometric, bits=bits)).pixels
    assert near(found, 255 - expected if photometric == WHITE_IS_ZERO else expected)


def test_a_palette_of_8_bits_is_not_black() -> None:
    palette = np.random.default_rng(0).integers(0, 256, (3, 256), np.uint16)
    samples = ramp(8).astype(np.uint8)
    found = shown(tiff(samples, PALETTE, bits=8, tags={320: ("H", palette.ravel().tolist())})).pixels
    assert (found == palette[:, samples[..., 0]].transpose(1, 2, 0)).all()


def test_ycbcr_of_which_colours_are_coarser() -> None:
    luma = ramp(8)[..., 0].astype(np.uint8)
    blocks = luma.reshape(12, 2, 20, 2).transpose(0, 2, 1, 3).reshape(12, 20, 4)
    packed = np.dstack([blocks, np.full((12, 20, 2), 128, np.uint8)])
    size = {256: ("I", [40]), 257: ("I", [24]), 277: ("H", [3]), 278: ("I", [24]), 530: ("H", [2, 2])}
    content = tiff(packed.reshape(12, 20, 6), YCBCR, bits=8, tags={**size, 258: ("H", [8, 8, 8])})
    assert near(shown(content).pixels, luma[:, :, None], 2)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extra", [0, 1, 2])
@pytest.mark.parametrize("planar", [False, True])
def test_gray_with_alpha(bits: int, extra: int, planar: bool) -> None:
    top = 2**bits - 1
    samples = np.dstack([ramp(bits) // 2, np.full((24, 40, 1), top // 2)]).astype(np.uint8 if bits == 8 else np.uint16)
    gray = eight(samples[..., :1], bits)
    expected = {0: gray, 1: gray + 127.5, 2: gray / 2 + 127.5}[extra]
    assert near(shown(tiff(samples, BLACK_IS_ZERO, bits=bits, extra=extra, planar=planar)).pixels, expected, 2)


@pytest.mark.parametrize("orientation", STORED)
def test_16_bits_come_out_upright(orientation: int) -> None:
    channels = [Image.fromarray(np.ascontiguousarray(ramp(16, 3)[..., at])) for at in range(3)]
    stored = np.dstack([np.asarray(channel.transpose(STORED[orientation])) for channel in channels])
    content = tiff(stored, RGB, bits=16, tags={274: ("H", [orientation])})
    assert near(shown(content).pixels, eight(ramp(16, 3), 16))


def test_floats_and_signed_samples_have_the_range_that_is_said() -> None:
    share = np.linspace(-1, 1, 24 * 40).reshape(24, 40, 1)
    said: Tags = {340: ("H", [0]), 341: ("H", [1])}
    expected = eight(share.clip(0, 1) * 65535, 16)
    assert near(shown(tiff(share.astype(np.float32), BLACK_IS_ZERO, bits=32, kind=3, tags=said)).pixels, expected)
    signed = (share * 4095).round().astype(np.int16)
    said = {340: ("H", [0]), 341: ("H", [4095])}
    assert near(shown(tiff(signed, BLACK_IS_ZERO, bits=16, kind=2, tags=said)).pixels, expected)


@pytest.mark.parametrize(
    ("samples", "kind"),
    [
        (ramp(16).astype(np.float32), 3),
        (ramp(15).astype(np.int16), 2),
        (ramp(16).astype(np.uint32), 1),
        (ramp(16).astype(np.int32), 2),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_has_no_known_range_is_named(samples: Samples, kind: int, channels: int) -> None:
    content = tiff(
        np.repeat(samples, channels, axis=2),
        RGB if channels == 3 else BLACK_IS_ZERO,
        bits=8 * samples.dtype.itemsize,
        kind=kind,
    )
    with pytest.raises(Undecodable) as caught:
        shown(content)
    assert caught.value.code == "unsupported_mode"
    assert "have no known range" in caught.value.detail


@pytest.mark.parametrize("compression", [32766, 32809, 34661, 34712, 34887, 50001, 50002])
def test_a_compression_that_is_not_read_is_no_damage(compression: int) -> None:
    content = tiff(ramp(8, 3), RGB, bits=8, tags={259: ("H", [compression])})
    with pytest.raises(Undecodable) as caught:
        shown(content)
    assert caught.value.code == "unsupported_mode"


def test_a_tiff_that_ends_early_is_truncated() -> None:
    content = tiff(ramp(16, 3), RGB, bits=16)
    late = struct.pack("<HHII", 273, 4, 1, len(content) - 100)
    with pytest.raises(Undecodable) as caught:
        shown(content.replace(struct.pack("<HHII", 273, 4, 1, 8), late))
    assert caught.value.code == "truncated"


def test_tiles_that_are_far_larger_than_the_picture_are_damage() -> None:
    content = tiff(ramp(16, 3), RGB, bits=16, tile=16)
    wide = content.replace(struct.pack("<HHII", 322, 4, 1, 16), struct.pack("<HHII", 322, 4, 1, 1 << 30))
    with pytest.raises(Undecodable) as caught:
        shown(wide)
    assert caught.value.code == "corrupt"


def test_pages_are_counted() -> None:
    file = io.BytesIO()
    pages = [Image.fromarray(ramp(16)[..., 0]) for _ in range(3)]
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    assert shown(file.getvalue()).frames == 3


def test_very_many_pages_are_counted_at_once() -> None:
    """Stacks of microscopes have tens of thousands; Pillow takes minutes to count them."""
    entries = [(256, 4), (257, 4), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 4), (279, 16)]
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    count, size = 50_000, 6 + len(tags)
    content = [b"II*\0", struct.pack("<I", 24), bytes(range(16))]
    for page in range(count):
        behind = 24 + size * (page + 1) if page < count - 1 else 24  # the last one leads to the first
        content.append(struct.pack("<H", len(entries)) + tags + struct.pack("<I", behind))
    found = shown(b"".join(content))
    assert found.frames == count
    assert found.pixels[..., 0].ravel().tolist() == list(range(16))


def test_a_side_that_is_too_long_is_said() -> None:
    with pytest.raises(Undecodable, match="1 x 70000 pixels: a side may have at most 65,535"):
        shown(pnm(np.zeros((70_000, 1, 1), np.uint8), 255))


def test_the_size_is_checked_first() -> None:
    with pytest.raises(Undecodable) as caught:
        decode(tiff(ramp(16, 3), RGB, bits=16), NATIVE, 24 * 40 - 1)
    assert caught.value.code == "too_many_pixels"


# Without TorchCodec Pillow reads the PNGs


@pytest.mark.parametrize("profile", [False, True])
@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("keyed", [False, True])
def test_pngs_are_the_same_by_pillow(
    colour: int, channels: int, keyed: bool, profile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = ramp(16, channels)
    extra = []
    if profile and channels > 2:
        extra.append(chunk(b"iCCP", b"a\0\0" + zlib.compress(rgb_profile("Adobe RGB"))))
    if keyed and channels in (1, 3):
        extra.append(chunk(b"tRNS", samples[3, 7].astype(">u2").tobytes()))
    content = png(samples, colour, 16, *extra)
    expected = shown(content).pixels
    monkeypatch.setattr(decoding, "_torchcodec", lambda: None)
    assert (shown(content).pixels == expected).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_so_are_those_of_a_few_bits_with_a_key(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = ramp(bits).astype(np.uint8)
    content = png(samples, 0, bits, chunk(b"tRNS", b"\0\1"))
    expected = shown(content).pixels
    assert (expected[samples[..., 0] == 1] == 255).all()
    monkeypatch.setattr(decoding, "_torchcodec", lambda: None)
    assert (shown(content).pixels == expected).all()


def test_the_first_rules_leave_the_bits_alone() -> None:
    first = Transform(fit="native", pixel_rules=rules.FIRST, bits=12)
    content = tiff(ramp(12), BLACK_IS_ZERO, bits=16, tags={281: ("H", [4095])})
    assert near(shown(content, first).pixels, eight(ramp(12), 16))
    assert shown(content, first).unsaid_bits == 0
