"""Which JPEGs are for a device: what it decodes as the processor does, known by their bytes."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from device_rig import exif, jpeg, photo
from fuzzing import Seeds
from PIL import ImageCms
from torchvision.io import ImageReadMode, decode_jpeg

from cvjobs.images import device_resizing
from cvjobs.images.decode import decode
from cvjobs.images.device_jpegs import suited
from cvjobs.images.transform import Transform

TURNED = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # EXIF data: on its side


def segment(marker: int, body: bytes) -> bytes:
    """A JPEG with more data of a marker."""
    content = jpeg(photo(1))
    return content[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + content[2:]


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(
    ("content", "good"),
    [
        (jpeg(photo(1)), True),
        (jpeg(photo(1), subsampling=0), True),
        (jpeg(photo(1), subsampling=1), True),
        (jpeg(photo(1), icc_profile=SRGB), True),
        (jpeg(photo(1), exif=exif(1)), True),
        (jpeg(photo(1).convert("L")), True),
        (jpeg(photo(1), exif=exif(6)), False),
        (jpeg(photo(1), progressive=True), False),
        (jpeg(photo(1).convert("CMYK")), False),
        (jpeg(photo(1), keep_rgb=True), False),
        (jpeg(photo(1), restart_marker_blocks=4), False),
        (jpeg(photo(1))[:-400], False),
        (jpeg(photo(1))[:-400] + b"\xff\xd9", True),  # whose end is there: nothing of the header is wrong
        (jpeg(photo(1)) + b"trailing", False),
        (jpeg(photo(1, (8, 8))), False),
        (jpeg(photo(1, (400, 40))), False),
        (jpeg(photo(1, (3000, 2000))), False),  # over the limit of pixels
        (jpeg(photo(1))[:-400] + b"\xff\x17" + jpeg(photo(1))[-398:], False),  # bytes that no encoder writes
        (jpeg(photo(1)).replace(b"\xff\xc4\0\x1f\0", b"\xff\xc4\0\x1f\3"), False),  # no table for the brightness
        (jpeg(photo(1)).replace(b"\xff\xc4\0\x1f\0\0", b"\xff\xc4\0\x1f\0\3"), False),  # more codes than bits
        (jpeg(photo(1)).replace(b"\xff\xdb\0C\1", b"\xff\xdb\0C\2"), False),  # no quanta for the colour
        (jpeg(photo(1)).replace(b"\xff\xda\0\x0c\3", b"\xff\xda\0\x0c\1"), False),  # a scan of one part
        (segment(0xE1, b"Exif\0\xff" + TURNED), False),
        (segment(0xE1, b"?" * 6 + TURNED), False),  # which is EXIF data to some
        (segment(0xE1, b"Exif\0\0" + TURNED.replace(b"\x12\x01\x03", b"\x12\x01?")), False),  # not said right
        (segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"), True),
        (b"", False),
        (b"\xff\xd8\xff", False),
        (b"\xff\xd8\xff\xe0\0\x02\xff\xd9", False),
        (b"\x89PNG\r\n\x1a\n", False),
    ],
)
def test_what_a_device_decodes_is_known_by_the_header(content: bytes, good: bool) -> None:
    found = suited(content, 1_000_000)
    assert (found is not None) == good
    if found is not None and len(content) > 1000:
        assert found == (90, 120)


def test_every_cut_and_every_damaged_byte_of_a_header_has_an_answer() -> None:
    content = jpeg(photo(2), exif=exif(1), icc_profile=SRGB)
    for length in range(700):
        suited(content[:length] + b"\xff\xd9", 1_000_000)
    chance = np.random.default_rng(0)
    for _ in range(50):
        damaged = bytearray(content)
        damaged[int(chance.integers(2, 700))] = int(chance.integers(0, 256))
        suited(bytes(damaged), 1_000_000)


FILES = [
    jpeg(photo(1), exif=exif(1)),
    jpeg(photo(2), subsampling=0, icc_profile=SRGB),
    jpeg(photo(3), subsampling=1, optimize=True),
    jpeg(photo(4).convert("L")),
]


def damaged(seed: int) -> bytes:
    """A file with damage of one kind: in its header, in its scan, of a sector, or with a part missing."""
    chance = np.random.default_rng(seed)
    content = bytearray(FILES[seed % len(FILES)])
    scan = content.index(b"\xff\xda") + 14
    kind = seed // len(FILES) % 4
    if kind == 0:
        for _ in range(chance.integers(1, 4)):
            content[chance.integers(2, scan)] = chance.choice([0, 1, 3, 6, 0x11, 0xFF, int(chance.integers(256))])
    elif kind == 1:
        content[chance.integers(scan, len(content) - 2)] = chance.integers(256)
    elif kind == 2:
        at = chance.integers(scan, len(content) - 200)
        content[at : at + 100] = [bytes(100), b"\xff" * 100, chance.bytes(100)][chance.integers(3)]
    else:
        at = chance.integers(scan, len(content) - 200)
        del content[at : at + chance.integers(1, 100)]
    return bytes(content)


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
def test_of_damaged_files_both_decoders_make_the_same_picture(seeds: Seeds) -> None:
    whole = Transform(size=(90, 120), fit="exact", resize=90)  # without a scale
    found = 0
    for seed in seeds(400):
        content = damaged(seed)
        if (size := suited(content, 1_000_000)) is None:
            continue
        found += 1
        expected = decode(content, whole, 1_000_000)  # none fails
        assert (expected.height, expected.width, expected.truncated) == (*size, False)
        coded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        pixels = decode_jpeg(coded, mode=ImageReadMode.RGB)[None]
        made = device_resizing.fit(pixels, whole)[0].numpy()
        assert np.abs(made.astype(int) - expected.pixels).max() <= 2
    assert found
