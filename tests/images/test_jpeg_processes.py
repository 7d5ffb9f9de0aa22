"""Valid JPEGs that are not read are called by their names, cut or whole; damage stays damage."""

from __future__ import annotations

import struct

import pytest
from image_writers import jpeg12
from odd_damage import encoded, segment

from cvjobs.images.decode import decode
from cvjobs.images.transform import Transform
from cvjobs.images.undecodable import Undecodable

JPEG = encoded("JPEG")


def said(content: bytes) -> tuple[str, str]:
    with pytest.raises(Undecodable) as caught:
        decode(content, Transform(fit="native"), 80_000_000)
    return caught.value.code, caught.value.detail


def process(marker: int, bits: int = 8, components: int = 3, lines: int = 16) -> bytes:
    """A JPEG whose frame is of another process."""
    at = JPEG.index(b"\xff\xc0")
    body = struct.pack(">BHHB", bits, lines, 16, components) + b"".join(
        bytes((number, 0x11, 0)) for number in range(1, components + 1)
    )
    (length,) = struct.unpack_from(">H", JPEG, at + 2)
    return JPEG[:at] + segment(marker, body) + JPEG[at + 2 + length :]


@pytest.mark.parametrize("end", [None, -3])
def test_twelve_bits_are_said(end: int | None) -> None:
    assert said(jpeg12()[:end]) == ("unsupported_mode", "a JPEG of 12 bits a sample is not supported")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (process(0xC2, bits=12), "a JPEG of 12 bits a sample"),
        (process(0xC3, bits=16), "a lossless JPEG of 16 bits a sample"),
        (process(0xC3, bits=2), "a lossless JPEG of 2 bits a sample"),
        (process(0xC9, bits=12), "a JPEG of 12 bits a sample"),
        (process(0xCB), "a lossless JPEG with arithmetic coding"),
        (process(0xC5), "a hierarchical JPEG"),
        (process(0xCE), "a hierarchical JPEG"),
        (process(0xDE), "a hierarchical JPEG"),
        (process(0xC7), "a hierarchical lossless JPEG"),
        (process(0xC0, components=2), "a JPEG of 2 components"),
        (process(0xC0, components=5), "a JPEG of 5 components"),
        (
            process(0xC0, lines=0)[:-2] + segment(0xDC, b"\0\x10") + b"\xff\xd9",
            "a JPEG that says its height behind its pixels (DNL)",
        ),
    ],
)
def test_each_process_has_its_name(content: bytes, name: str) -> None:
    assert said(content) == ("unsupported_mode", f"{name} is not supported")


def test_jpeg_ls_is_a_format_of_its_own() -> None:
    assert said(process(0xF7, bits=16)) == ("unsupported_format", "JPEG-LS images are not supported")


@pytest.mark.parametrize("content", [process(0xC0, bits=9), process(0xC0, components=0), process(0xC0, lines=0)])
def test_a_header_that_no_standard_has_is_damage(content: bytes) -> None:
    assert said(content)[0] == "corrupt"


@pytest.mark.parametrize(
    ("start", "name"), [(b"II\xbc\x01", "JPEG XR"), (b"gimp xcf v011", "GIMP"), (b"\0\0\0\x18ftypcrx ", "Canon raw")]
)
def test_formats_that_are_not_read_are_named(start: bytes, name: str) -> None:
    assert said(start + bytes(100)) == ("unsupported_format", f"{name} images are not supported")
