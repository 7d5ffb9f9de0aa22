"""Which way up an image is: by its EXIF data, as viewers and TorchCodec turn it, and by nothing else.

Pillow also looks into XMP and into texts of a PNG, which a picture may have kept after it was turned.
"""

from __future__ import annotations

import struct

from PIL import Image

from cvjobs.common import rules

TAG = 0x0112
ON_ITS_SIDE = (5, 6, 7, 8)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def said(image: Image.Image, pixel_rules: int) -> int:
    """Return the orientation (1 to 8) of an image that is loaded; Pillow turns a TIFF itself as it loads it."""
    if pixel_rules == rules.FIRST:
        exif = image.getexif()
    else:
        data = image.info.get("exif")
        if not isinstance(data, bytes) or image.format == "TIFF":
            return 1
        exif = Image.Exif()
        exif.load(data)
    found = exif.get(TAG)
    return found if isinstance(found, int) else 1


def upright(image: Image.Image) -> Image.Image:
    """Return an image that is loaded as it is to be seen, by the second rules."""
    turn = _TURNS.get(said(image, rules.PIXELS))
    return image if turn is None else image.transpose(turn)


def is_late(image: Image.Image, content: bytes) -> bool:
    """Whether EXIF data are where TorchCodec does not look.

    That is behind other data of the same marker of a JPEG, and behind the pixels of a PNG.
    """
    if image.format == "PNG":
        return _behind_pixels(content)
    segments: list[tuple[str, bytes]] = getattr(image, "applist", [])
    first = next((body for name, body in segments if name == "APP1"), b"Exif\0\0")
    return not first.startswith(b"Exif\0\0") and "exif" in image.info


def _behind_pixels(content: bytes) -> bool:
    at, pixels = 8, False
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"eXIf":
            return pixels
        pixels = pixels or kind == b"IDAT"
        at += 12 + length
    return False
