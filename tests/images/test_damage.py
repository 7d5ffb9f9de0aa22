"""Damage behind the first picture or in metadata costs nothing; in it, it is named, and what is readable is used."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import odd_damage
import pytest
from odd_damage import chunk, encoded, picture, segment, turned
from PIL import Image, PngImagePlugin

from cvjobs.images.decode import Decoded, decode
from cvjobs.images.first_frame.by_format import find
from cvjobs.images.transform import Transform
from cvjobs.images.undecodable import Undecodable

NATIVE = Transform(fit="native")
USED = Transform(fit="native", truncated="use")
FIRST = Transform(fit="native", pixel_rules=1)
LIMIT = 80_000_000
MEGABYTE = 1 << 20


def decoded(content: bytes, transform: Transform = NATIVE) -> Decoded:
    return decode(content, transform, LIMIT)


def failure(content: bytes, transform: Transform = NATIVE) -> Undecodable:
    with pytest.raises(Undecodable) as caught:
        decode(content, transform, LIMIT)
    return caught.value


def texts(**kinds: int) -> PngImagePlugin.PngInfo:
    """Texts of so many bytes."""
    info = PngImagePlugin.PngInfo()
    for kind, count in kinds.items():
        {
            "plain": lambda n: info.add_text("Comment", "x" * n),
            "packed": lambda n: info.add_text("Comment", "x" * n, zip=True),
            "itxt": lambda n: info.add_itxt("Comment", "x" * n, zip=True),
        }[kind](count)
    return info


def behind(content: bytes, at: int, more: bytes) -> bytes:
    return content[:at] + more + content[at:]


PNG, JPEG, GIF, WEBP, TIFF = (encoded(f) for f in ("PNG", "JPEG", "GIF", "WEBP", "TIFF"))

LARGE: dict[str, Callable[[], tuple[bytes, bytes]]] = {
    "text of a PNG": lambda: (PNG, encoded("PNG", pnginfo=texts(plain=70 * MEGABYTE))),
    "packed text of a PNG": lambda: (PNG, encoded("PNG", pnginfo=texts(packed=20 * MEGABYTE))),
    "international text of a PNG": lambda: (PNG, encoded("PNG", pnginfo=texts(itxt=20 * MEGABYTE))),
    "profile of a PNG": lambda: (PNG, encoded("PNG", icc_profile=bytes(2 * MEGABYTE))),
    "larger profile of a PNG": lambda: (PNG, encoded("PNG", icc_profile=bytes(20 * MEGABYTE))),
    "private chunk of a PNG": lambda: (PNG, behind(PNG, 33, chunk(b"prVt", bytes(9 * MEGABYTE)))),
    "comments of a JPEG": lambda: (JPEG, behind(JPEG, 2, segment(0xFE, bytes(65533)) * 200)),
    "EXIF of a JPEG": lambda: (JPEG, behind(JPEG, 2, segment(0xE1, b"Exif\0\0" + bytes(65527)) * 400)),
    "application data of a JPEG": lambda: (JPEG, behind(JPEG, 2, segment(0xEB, bytes(65533)) * 200)),
    "profile of a JPEG": lambda: (JPEG, encoded("JPEG", icc_profile=bytes(4 * MEGABYTE))),
    "fill bytes of a JPEG": lambda: (JPEG, behind(JPEG, 2, b"\xff" * 30 * MEGABYTE)),
    "EXIF of a WebP": lambda: (WEBP, encoded("WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0" + bytes(9 * MEGABYTE))),
    "XMP of a WebP": lambda: (WEBP, encoded("WEBP", xmp=bytes(9 * MEGABYTE))),
    "comment of a GIF": lambda: (GIF, encoded("GIF", comment=b"x" * 9 * MEGABYTE)),
    "tag of a TIFF": lambda: (TIFF, encoded("TIFF", tiffinfo={700: b"x" * 9 * MEGABYTE})),
    "comment of a PPM": lambda: (encoded("PPM"), behind(encoded("PPM"), 2, b"\n#" + b"x" * 30 * MEGABYTE)),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", LARGE)
def test_large_metadata_costs_no_picture_and_no_time(what: str) -> None:
    small, large = LARGE[what]()
    began = time.process_time()
    assert (decoded(large).pixels == decoded(small).pixels).all()
    assert time.process_time() - began < 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_bomb_in_metadata_costs_no_memory(kind: bytes) -> None:
    packed = zlib.compress(bytes(80 * MEGABYTE))
    start = b"k\0\1\0\0\0" if kind == b"iTXt" else b"k\0\0"
    content = behind(PNG, 33, chunk(kind, start + packed) * (1 if kind == b"iCCP" else 6))
    tracemalloc.start()
    try:
        assert (decoded(content).pixels == decoded(PNG).pixels).all()
        assert tracemalloc.get_traced_memory()[1] < 40 * MEGABYTE
    finally:
        tracemalloc.stop()


def test_a_profile_that_a_decoder_can_read_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 8 * MEGABYTE)
    profile = b"profile" + bytes(2 * MEGABYTE)
    content = behind(encoded("PNG", icc_profile=profile), 33, chunk(b"tEXt", b"a damaged text", 7))
    layout = find(content, "PNG")
    assert layout is not None
    with Image.open(io.BytesIO(layout.content)) as image:
        assert image.info["icc_profile"] == profile


METADATA = {
    "a text with another checksum": behind(PNG, 33, chunk(b"tEXt", b"a text", 7)),
    "a palette's size that is none": behind(PNG, 33, chunk(b"hIST", b"", 7)),
    "a profile with an unknown compression": behind(PNG, 33, chunk(b"iCCP", b"p\0\7xyz")),
    "a gamma without a number": behind(PNG, 33, chunk(b"gAMA", b"")),
    "an animation without frames": behind(PNG, 33, chunk(b"acTL", bytes(8))),
    "an animation that breaks off": behind(PNG, -12, chunk(b"fdAT", b"\0")),
    "an adobe segment that is short": behind(JPEG, 2, segment(0xEE, b"Adobe")),
    "a JFIF segment that is short": behind(JPEG, 2, segment(0xE0, b"JFIF\0")),
    "an index of pictures that is none": behind(JPEG, 2, segment(0xE2, b"MPF\0II*\0\x08\0\0\0\1\0\1\xb0")),
    "a control block that is short": behind(GIF, -(len(GIF) - GIF.index(b",\0\0\0\0")), b"!\xf9\1\1\0"),
    "a loop block that is short": behind(GIF, -(len(GIF) - GIF.index(b",\0\0\0\0")), b"!\xff\x0bNETSCAPE2.0\1\1\0"),
}


@pytest.mark.parametrize("what", METADATA)
def test_damaged_metadata_costs_nothing(what: str) -> None:
    content = METADATA[what]
    whole = {0x89: PNG, 0xFF: JPEG, 0x47: GIF}[content[0]]
    for transform in (NATIVE, FIRST):
        assert (decoded(content, transform).pixels == decoded(whole, transform).pixels).all()


def test_a_damaged_tag_leaves_the_orientation() -> None:
    content = behind(encoded("PNG", exif=turned(6)), 33, chunk(b"zTXt", b"k\0\0damaged"))
    assert decoded(content).pixels.shape[:2] == odd_damage.SIDE[::-1]
    content = behind(encoded("JPEG", exif=turned(6)), 2, segment(0xEE, b"Adobe"))
    assert decoded(content).pixels.shape[:2] == odd_damage.SIDE[::-1]


def test_exif_behind_other_data_turns_a_jpeg_by_the_second_rules() -> None:
    content = behind(encoded("JPEG", exif=turned(6)), 2, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"))
    assert decoded(content).pixels.shape[:2] == odd_damage.SIDE[::-1]
    assert decoded(content, FIRST).pixels.shape[:2] == odd_damage.SIDE


# What lies behind the first picture

SEVERAL = {f: encoded(f, pages=3) for f in ("PNG", "GIF", "TIFF", "WEBP", "MPO")}


@pytest.mark.parametrize("format_", SEVERAL)
@pytest.mark.parametrize("damage", ["cut", "zeros", "noise", "ones"])
def test_damage_of_later_pictures_costs_nothing(format_: str, damage: str) -> None:
    content, end = SEVERAL[format_], odd_damage.end(format_, SEVERAL[format_])
    left = len(content) - end
    tail = {"cut": b"", "zeros": bytes(left), "ones": b"\xff" * left, "noise": np.random.default_rng(0).bytes(left)}
    found = decoded(content[:end] + tail[damage])
    assert (found.pixels == decoded(content).pixels).all()
    assert found.frames >= 1


def test_an_animation_of_avif_that_is_cut_has_its_first_frame() -> None:
    content = encoded("AVIF", pages=3)
    found = decoded(content[: len(content) * 9 // 10])
    assert (found.pixels == decoded(content).pixels).all()


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"])
@pytest.mark.parametrize("trash", [b"\0" * 5000, b"\xff" * 100, b"RIFF\xff\xff\xff\xff", b"\x89PNG\r\n\x1a\n", JPEG])
def test_what_follows_the_file_costs_nothing(format_: str, trash: bytes) -> None:
    content = encoded(format_)
    found = decoded(content + trash)
    assert (found.pixels == decoded(content).pixels).all()
    assert found.frames == 1


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}, {"restart": True}])
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_without_its_end_mark_is_whole(options: dict[str, Any], missing: int) -> None:
    if options.pop("restart", False):
        options["restart_marker_blocks"] = 2
    content = encoded("JPEG", **options)
    for transform in (NATIVE, FIRST, Transform(size=(8, 8), resize=8)):
        found = decoded(content[:-missing], transform)
        assert (found.pixels == decoded(content, transform).pixels).all()
        assert not found.truncated


def test_a_png_without_the_end_of_its_checksum_is_whole() -> None:
    for end in (PNG.index(b"IEND") - 4, PNG.index(b"IEND") - 8, PNG.index(b"IEND") + 2):
        assert (decoded(PNG[:end]).pixels == decoded(PNG).pixels).all()
    other = PNG[:-4] + b"\0\0\0\0"
    assert (decoded(other).pixels == decoded(PNG).pixels).all()


def test_a_webp_whose_lengths_are_wrong_is_whole() -> None:
    for at in (4, 16):
        content = bytearray(WEBP)
        content[at : at + 4] = struct.pack("<I", len(WEBP) + 1000)
        assert (decoded(bytes(content)).pixels == decoded(WEBP).pixels).all()


def test_a_scan_that_is_missing_as_a_whole_is_a_part_of_the_picture() -> None:
    content = encoded("JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    cut = content[: content.rindex(b"\xff\xc4", 0, last)]
    assert failure(cut).code == "truncated"
    found = decoded(cut, USED)
    assert found.truncated
    assert np.abs(found.pixels.astype(int) - decoded(content).pixels).mean() < 10


# What is wrong with the first picture


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        *((format_, {}) for format_ in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")),
        *(("TIFF", {"compression": f"tiff_{name}"}) for name in ("lzw", "deflate")),
    ],
)
def test_a_picture_that_is_cut_is_called_so_wherever_that_is(format_: str, options: dict[str, Any]) -> None:
    content = encoded(format_, **options)
    for share in np.linspace(0.02, 0.95, 12):
        length = max(int(len(content) * share), 16)
        error = failure(content[:length])
        assert (error.code, error.detail) == ("truncated", "the file ends before its picture does"), length


@pytest.mark.parametrize("at", ["IHDR", "IDAT"])
def test_damage_in_the_picture_is_named_without_the_name_of_an_exception(at: str) -> None:
    content = bytearray(PNG)
    place = content.index(at.encode()) + 6
    content[place : place + 30] = b"\xee" * 30
    error = failure(bytes(content))
    assert error.code == "corrupt"
    assert "Error" not in error.detail


# Using what can be read


def rows(found: Decoded, whole: Decoded) -> tuple[int, int]:
    """How many rows from the top are those of the whole picture, and how many from the bottom are gray."""
    same = (found.pixels == whole.pixels).all(axis=(1, 2))
    gray = (found.pixels == 128).all(axis=(1, 2))[::-1]
    return int((~same).argmax()), int((~gray).argmax())


def large(format_: str, **options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 90, (240, 320, 3))
    y, x = np.mgrid[0:240, 0:320]
    file = io.BytesIO()
    pixels = (np.stack([x / 2, y / 2, (x + y) / 4], 2) + noise).astype(np.uint8)
    Image.fromarray(pixels).save(file, format_, **options)
    return file.getvalue()


@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("JPEG", {}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("GIF", {"interlace": 0}),
        ("TIFF", {}),
        ("PPM", {}),
    ],
)
def test_what_can_be_read_is_used_and_the_rest_is_gray(format_: str, options: dict[str, Any], share: float) -> None:
    content = large(format_, **options)
    cut = content[: int(len(content) * share)]
    assert failure(cut).code == "truncated"
    found = decoded(cut, USED)
    assert found.truncated
    assert (found.width, found.height) == (320, 240)
    same, gray = rows(found, decoded(content))
    assert abs(same - 240 * share) < 70
    assert 240 - 20 <= same + gray <= 240


def test_a_bitmap_is_read_from_its_bottom() -> None:
    content = large("BMP")
    found, whole = decoded(content[: len(content) // 2], USED), decoded(content)
    assert found.truncated
    assert (found.pixels[130:] == whole.pixels[130:]).all()
    assert (found.pixels[:110] == 128).all()


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA", "I;16"])
def test_every_kind_of_pixel_is_used(mode: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80), np.uint8))
    image = Image.fromarray(np.asarray(noise).astype(np.uint16) * 257) if mode == "I;16" else noise.convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    content = file.getvalue()
    found, whole = decoded(content[: len(content) * 2 // 3], USED), decoded(content)
    same, gray = rows(found, whole)
    assert found.truncated
    assert same >= 25
    assert gray >= 12
    assert same + gray >= 59


def test_the_rest_of_a_turned_picture_is_gray_where_it_lies() -> None:
    file = io.BytesIO()
    picture(0).resize((320, 240)).save(file, "PNG", exif=turned(6))
    content = file.getvalue()
    found, whole = decoded(content[: len(content) // 2], USED), decoded(content)
    assert found.pixels.shape == (320, 240, 3)
    assert (found.pixels[:, -50:] == whole.pixels[:, -50:]).all()
    assert (found.pixels[:, :50] == 128).all()


def test_a_picture_that_is_whole_is_not_marked() -> None:
    for format_ in ("JPEG", "PNG", "WEBP", "GIF", "TIFF"):
        assert not decoded(encoded(format_), USED).truncated
        assert (decoded(encoded(format_), USED).pixels == decoded(encoded(format_)).pixels).all()


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "WEBP"])
def test_where_nothing_can_be_read_it_stays_an_error(format_: str) -> None:
    content = large(format_)
    mark = {"JPEG": b"\xff\xda", "PNG": b"IDAT", "GIF": b",\0\0\0\0", "WEBP": b"VP8 "}[format_]
    assert failure(content[: content.index(mark) + 14], USED).code == "truncated"


def test_gray_of_a_tiff_with_alpha_that_was_multiplied_is_read() -> None:
    image = Image.merge("LA", (Image.new("L", (8, 8), 60), Image.new("L", (8, 8), 128)))
    file = io.BytesIO()
    image.save(file, "TIFF")
    straight, multiplied = (struct.pack("<HHII", 338, 3, 1, kind) for kind in (2, 1))
    content = file.getvalue().replace(straight, multiplied)
    assert abs(int(decoded(content).pixels[0, 0, 0]) - (60 + 127)) <= 1


def test_damage_is_not_used() -> None:
    content = bytearray(PNG)
    content[content.index(b"IDAT") + 20] ^= 0xFF
    assert failure(bytes(content), USED).code == "corrupt"


def test_the_size_of_the_model_is_that_of_any_picture() -> None:
    content = large("JPEG")
    found = decoded(content[: len(content) // 2], Transform(size=(32, 32), resize=36, truncated="use"))
    whole = decoded(content, Transform(size=(32, 32), resize=36))
    assert found.truncated
    assert np.abs(found.pixels[:12].astype(int) - whole.pixels[:12]).max() <= 2
    assert (np.abs(found.pixels[20:].astype(int) - 128) <= 2).all()


def test_a_transform_says_what_becomes_of_cut_pictures_only_where_it_uses_them() -> None:
    assert "truncated" not in NATIVE.record()
    assert USED.record()["truncated"] == "use"
    assert Transform.load(USED.record()) == USED
    assert Transform.load(NATIVE.record()).truncated == "fail"
