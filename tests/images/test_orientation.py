"""Which way up an image is, by what its file says and wherever it says so; and which picture of a HEIC counts."""

from __future__ import annotations

import io
import struct
from typing import Any

import odd_damage
import pytest
from odd_damage import chunk, encoded, turned
from PIL import Image, PngImagePlugin

from cvjobs.images.decode import Decoded, decode
from cvjobs.images.heif_items import primary_alone
from cvjobs.images.transform import Transform

NATIVE = Transform(fit="native")
FIRST = Transform(fit="native", pixel_rules=1)
SMALL = Transform(size=(4, 4), resize=4)  # for which a JPEG is decoded smaller
SMALL_FIRST = Transform(size=(4, 4), resize=4, pixel_rules=1)
STORED, UPRIGHT = odd_damage.SIDE, odd_damage.SIDE[::-1]
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def decoded(content: bytes, transform: Transform = NATIVE) -> Decoded:
    return decode(content, transform, 80_000_000)


def size(content: bytes, transform: Transform) -> tuple[int, int]:
    found = decoded(content, transform)
    return found.height, found.width


def exif_behind_the_pixels(content: bytes) -> bytes:
    said = turned(6).tobytes().removeprefix(b"Exif\0\0")
    return content[:-12] + chunk(b"eXIf", said) + content[-12:]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16"])
def test_exif_behind_the_pixels_turns_a_png_by_the_second_rules(mode: str) -> None:
    if mode == "I;16":
        deep = Image.new("I;16", STORED[::-1], 1 << 15)
        deep.paste(0, (0, 0, 9, 3))
        before, content = saved(deep, exif=turned(6)), exif_behind_the_pixels(saved(deep))
    else:
        before, content = encoded("PNG", mode, exif=turned(6)), exif_behind_the_pixels(encoded("PNG", mode))
    assert (decoded(content).pixels == decoded(before).pixels).all()
    assert size(content, NATIVE) == UPRIGHT
    assert size(content, FIRST) == STORED


def saved(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def with_xmp(format_: str, pages: int = 1) -> bytes:
    if format_ == "TIFF":
        return encoded("TIFF", tiffinfo={700: XMP})
    if format_ == "PNG":
        said = PngImagePlugin.PngInfo()
        said.add_itxt("XML:com.adobe.xmp", XMP.decode())
        return encoded("PNG", pages=pages, pnginfo=said)
    if format_ == "GIF":
        blocks = b"\x21\xff\x0bXMP DataXMP" + XMP + b"\x01" + bytes(range(255, -1, -1)) + b"\0"
        content = encoded("GIF")
        start = 13 + (3 << (content[10] & 7) + 1 if content[10] & 128 else 0)
        return content[:start] + blocks + content[start:]
    return encoded(format_, xmp=XMP)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF"])
def test_xmp_turns_no_image(format_: str) -> None:
    content = with_xmp(format_)
    assert b"Orientation" in content
    assert [size(content, transform) for transform in (NATIVE, SMALL)] == [STORED, STORED]


def test_neither_xmp_nor_texts_turn_an_animation() -> None:
    assert size(with_xmp("PNG", pages=2), NATIVE) == STORED
    said = PngImagePlugin.PngInfo()
    exif = turned(6).tobytes()
    said.add_text("Raw profile type exif", f"\nexif\n{len(exif):8d}\n{exif.hex()}\n")
    assert size(encoded("PNG", pages=2, pnginfo=said), NATIVE) == STORED


def test_exif_counts_beside_xmp() -> None:
    assert size(encoded("JPEG", exif=turned(8), xmp=XMP), NATIVE) == UPRIGHT
    beside = decoded(encoded("JPEG", exif=turned(8), xmp=XMP), SMALL).pixels
    assert (beside == decoded(encoded("JPEG", exif=turned(8)), SMALL).pixels).all()


def test_the_first_rules_turn_by_xmp_what_they_decode_smaller() -> None:
    assert size(with_xmp("JPEG"), FIRST) == STORED
    assert size(with_xmp("JPEG"), SMALL_FIRST) == UPRIGHT
    assert size(with_xmp("TIFF"), FIRST) == UPRIGHT


def heic(*items: tuple[int, bytes, bool], primary: int, wide: bool = False) -> bytes:
    """The boxes of a HEIC that name its items: number, type, whether hidden."""
    form = ">I" if wide else ">H"
    boxes = box(b"pitm", wide, 0, struct.pack(form, primary))
    for number, kind, hidden in items:
        boxes += box(b"infe", 2 + wide, hidden, struct.pack(form, number) + b"\0\0" + kind + b"\0")
    return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + box(b"meta", 0, 0, boxes)


def box(kind: bytes, version: int, flags: int, content: bytes) -> bytes:
    return struct.pack(">I", 12 + len(content)) + kind + bytes([version, 0, 0, flags]) + content


@pytest.mark.parametrize("wide", [False, True])
def test_of_a_heic_the_primary_picture_counts(wide: bool) -> None:
    tile, exif = (7, b"hvc1", True), (8, b"Exif", False)
    first, second, third = (1, b"hvc1", False), (2, b"grid", False), (3, b"hvc1", False)
    content = heic(first, second, tile, exif, third, primary=2, wide=wide)
    hidden = (1, b"hvc1", True), second, tile, exif, (3, b"hvc1", True)
    assert primary_alone(content) == heic(*hidden, primary=2, wide=wide)
    assert primary_alone(heic(second, first, primary=2, wide=wide)) == heic(second, hidden[0], primary=2, wide=wide)
    for as_it_is in (
        heic(first, second, primary=1, wide=wide),
        heic(tile, second, third, primary=2, wide=wide),
        heic(first, second, primary=9, wide=wide),
        b"no boxes",
    ):
        assert primary_alone(as_it_is) == as_it_is
