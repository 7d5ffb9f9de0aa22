"""From the pixels of an image to those of the size that a model takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cvjobs.common import rules
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import LONGEST, Transform

_LONG = 4  # times the crop: a resized side that is longer is only made where the crop is
_SUPPORT = {"nearest": 1.0, "bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}  # pixels that a filter reaches
_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

Samples = npt.NDArray[Any]  # uint8 or, where they are not rounded, float32


def resized(height: int, width: int, transform: Transform) -> tuple[int, int]:
    """Return the (height, width) that an image is resized to, before it is cropped."""
    if transform.fit == "native":
        return height, width
    if transform.fit == "exact" and transform.size:
        return transform.size
    if transform.fit == "square":
        return transform.resize, transform.resize
    if transform.fit == "whole":
        most = transform.resize, LONGEST * transform.resize
        share = min(1.0, most[0] / min(height, width), most[1] / max(height, width))
        return max(round(height * share), 1), max(round(width * share), 1)
    if width <= height:
        size = (int(transform.resize * height / width), transform.resize)
    else:
        size = (transform.resize, int(transform.resize * width / height))
    return max(size[0], 1), max(size[1], 1)


def corner(given: int, kept: int, transform: Transform) -> int:
    """Return where the middle ``kept`` pixels of ``given`` begin."""
    return (given - kept) // 2 if transform.crop == "down" else round((given - kept) / 2.0)


def fit(pixels: Pixels, transform: Transform) -> Pixels:
    """Resize with antialiasing and crop the centre; uint8 (height, width, 3) to ``transform.size``.

    The arithmetic of the sizes is torchvision's: the longer side is truncated, the crop's corner rounded as the
    transform says; where the image is smaller than the crop it is padded with black. Without ``transform.size`` nothing
    is cropped. Of a picture that is much longer than the crop, only that is resized: the result is within 1 of 255.

    With 16 ``grey_bits`` the result is not rounded to whole numbers: it is (2 x height, width, 3), the whole numbers
    above, below them the rest in 256ths.
    """
    if transform.fit == "native":
        return pixels
    if transform.grey_bits == 8:
        return _fit(pixels, transform)
    values = np.rint(_fit(pixels.astype(np.float32), transform) * 256).astype(np.uint16)
    return np.concatenate([values >> 8, values & 255]).astype(np.uint8)


def _fit(pixels: Samples, transform: Transform) -> Samples:
    size = resized(pixels.shape[0], pixels.shape[1], transform)
    crop = transform.size
    if crop is None:
        return _resize(pixels, size, transform.interpolation)
    if transform.pixel_rules > rules.FIRST and any(side > _LONG * most for side, most in zip(size, crop, strict=True)):
        return _crop(_centre(pixels, size, crop, transform), transform)
    try:
        return _crop(_resize(pixels, size, transform.interpolation), transform)
    except (MemoryError, RuntimeError):
        if size[0] <= crop[0] and size[1] <= crop[1]:
            raise
    return _crop(_centre(pixels, size, crop, transform), transform)


def _resize(pixels: Samples, size: tuple[int, int], interpolation: str) -> Samples:
    if pixels.shape[:2] == size:
        return pixels
    if interpolation == "lanczos":
        return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.LANCZOS))
    import torch

    if not (pixels.flags.c_contiguous and pixels.flags.writeable):
        pixels = pixels.copy()
    tensor = torch.from_numpy(pixels[None]).permute(0, 3, 1, 2)
    smooth = {} if interpolation == "nearest" else {"antialias": True, "align_corners": False}
    resized = torch.nn.functional.interpolate(tensor, size=size, mode=interpolation, **smooth)
    return resized[0].permute(1, 2, 0).numpy()


def _centre(pixels: Samples, size: tuple[int, int], crop: tuple[int, int], transform: Transform) -> Samples:
    """Return of the resized picture the part that the crop keeps, for which only its part of the image is looked at."""
    interpolation = transform.interpolation
    kept = [min(side, most) for side, most in zip(size, crop, strict=True)]
    sides = [
        (given, side, most, corner(side, most, transform))
        for given, side, most in zip(pixels.shape[:2], size, kept, strict=True)
    ]
    if interpolation == "nearest":
        down, across = (_nearest(*side) for side in sides)
        return pixels[down[:, None], across]
    (top, bottom, rows), (left, right, columns) = (_span(*side, _SUPPORT[interpolation]) for side in sides)
    part = Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right], np.uint8))
    # Pillow begins with the height of a high image that shrinks, which the longest filter shows.
    high = interpolation == "lanczos" and pixels.shape[1] < pixels.shape[0] > size[0]
    for upright in (high, not high):
        shape = (part.width, sides[0][2]) if upright else (sides[1][2], part.height)
        box = (0.0, rows[0], part.width, rows[1]) if upright else (columns[0], 0.0, columns[1], part.height)
        part = part.resize(shape, _FILTERS[interpolation], box=box)
    return np.asarray(part)


def _span(given: int, side: int, kept: int, before: int, support: float) -> tuple[int, int, tuple[float, float]]:
    """Return which of ``given`` pixels become the middle ``kept`` of ``side``: from, to, and the place within these."""
    scale = given / side
    start, end = before * scale, (before + kept) * scale
    reach = support * max(scale, 1.0) + 1
    first, last = max(math.floor(start - reach), 0), min(math.ceil(end + reach), given)
    return first, last, (start - first, min(end - first, last - first))


def _nearest(given: int, side: int, kept: int, before: int) -> npt.NDArray[np.int64]:
    """Return which pixel torch takes for each of the middle ``kept`` of ``side``, with its arithmetic."""
    places = np.arange(kept, dtype=np.float32) + np.float32(before)
    found: npt.NDArray[np.int64] = np.minimum(np.floor(places * np.float32(given / side)), given - 1).astype(np.int64)
    return found


def _crop(pixels: Samples, transform: Transform) -> Samples:
    assert transform.size is not None
    size = height, width = transform.size
    if pixels.shape[:2] == size:
        return pixels
    missing = max(height - pixels.shape[0], 0), max(width - pixels.shape[1], 0)
    if any(missing):
        before = missing[0] // 2, missing[1] // 2
        after = missing[0] - before[0], missing[1] - before[1]
        pixels = np.pad(pixels, ((before[0], after[0]), (before[1], after[1]), (0, 0)))
    top, left = (corner(given, kept, transform) for given, kept in zip(pixels.shape[:2], size, strict=True))
    return pixels[top : top + height, left : left + width]
