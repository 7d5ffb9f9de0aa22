"""What is wrong with an image, by what its decoder said, and the pixels that can be read of one that is cut short."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps

GRAY = 128
CUT = "the file ends before its picture does"
NO_MEMORY = re.compile(r"bad_alloc|(out of|not enough|insufficient) memory|(cannot|can't|failed to) allocate", re.I)
_NEARLY = 2  # of 255
_BLOCK = 16 * 16  # pixels
_EARLY = ("truncated", "premature", "incomplete", "not enough image data", "unexpected end")
_ORIENTATION = 0x0112


def reason(error: BaseException) -> tuple[str, str]:
    """Return the code and detail of a decoder's exception.

    What a decoder says is looked at and never passed on: it may repeat bytes of the file, which may be any file.
    """
    text = str(error)
    lower = text.lower()
    if NO_MEMORY.search(text):
        return "decode_memory", "decoding needs more memory than there is for one image"
    if "no native decoder" in lower or "libheif" in lower:
        return "unsupported_format", "this system has no decoder for this HEIC"
    if any(word in lower for word in _EARLY):
        return "truncated", CUT
    if "unknown pixel mode" in lower or "unsupported" in lower or ("decoder" in lower and "not available" in lower):
        return "unsupported_mode", "its kind of pixels or of compression is not supported"
    return "corrupt", "no decoder can make a picture of its content"


def readable(
    opened: Callable[[], Image.Image],
    pixels_of: Callable[[Image.Image], npt.NDArray[np.uint8]],
    orientation: Callable[[Image.Image], int],
) -> npt.NDArray[np.uint8]:
    """Return the pixels of a file that is cut, as far as Pillow reads them, and the rest gray.

    ``pixels_of`` turns it by its ``orientation``. It is read into two pictures of which every pixel differs: where
    they still do, nothing was read.
    """
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        dark, light = _filled(opened(), 0), _filled(opened(), 255)
        same = np.asarray(dark) == np.asarray(light)
        read = (same if same.ndim == 2 else same.all(axis=2)).astype(np.uint8)
        mask = Image.fromarray(read)
        mask.getexif()[_ORIENTATION] = orientation(dark)
        upright = np.asarray(ImageOps.exif_transpose(mask))
        return np.where(upright[:, :, None] != 0, pixels_of(dark), np.uint8(GRAY))
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def _filled(image: Image.Image, value: int) -> Image.Image:
    """Load an image into pixels that were all of one value."""
    prepare: Callable[[], None] = image.load_prepare  # type: ignore[attr-defined]

    def prepared(self: Any) -> None:
        prepare()
        deep = self.im.mode.startswith("I;16")
        ink = value * 257 if deep else value
        bands = Image.getmodebands(self.im.mode)
        self.im.paste(ink if bands == 1 else (ink,) * bands, (0, 0, *self.im.size))

    image.load_prepare = types.MethodType(prepared, image)  # type: ignore[attr-defined]
    try:
        image.load()
    except OSError:
        if not image.tile:  # type: ignore[attr-defined]
            return image
        raise
    return image


def grayed(pixels: npt.NDArray[np.uint8], others: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Return a picture of which others have other endings: gray from the first row on that depends on the ending."""
    differ = np.zeros(len(pixels), bool)
    for other in others:
        differ |= (pixels != other).any(axis=(1, 2))
    gray = pixels.copy()
    gray[int(differ.argmax()) if differ.any() else len(gray) :] = GRAY
    return gray


def is_gray(pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether nothing is to be seen: at most what a decoder of JPEG makes of its own filling, one block."""
    seen = (np.abs(pixels.astype(np.int16) - GRAY) > _NEARLY).any(axis=2)
    return int(np.count_nonzero(seen)) <= _BLOCK
