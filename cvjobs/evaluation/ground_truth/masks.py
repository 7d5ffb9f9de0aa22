"""PNG masks, one an image, whose pixels are class ids: of one channel, or with a palette as VOC's."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from cvjobs.common.categories import Category
from cvjobs.evaluation.ground_truth import folder_files
from cvjobs.evaluation.ground_truth.types import BadTruth, PixelTruth

MAX_PIXELS = 400_000_000
MODES = ("1", "L", "P", "I;16", "I")
PNG = PngImagePlugin.PngImageFile.format


def fits(path: Path) -> bool:
    """Return whether a place is a folder with PNG files."""
    return path.is_dir() and folder_files.any_below(path, ".png")


def read(path: Path, masks: bool, names: Sequence[str]) -> PixelTruth:  # noqa: ARG001 - that is what they are
    """Return the masks of a folder, unopened; the line number of a name, from 0, is its class id."""
    found = folder_files.below(path, ".png")
    known = folder_files.class_names(path, names)
    return PixelTruth(
        format="masks",
        names=[folder_files.name_of(file, path) for file in found],
        endings=False,
        files=found,
        categories=[Category(at, name) for at, name in enumerate(known)],
    )


class NoMask(ValueError):
    """A PNG does not hold class ids."""


def pixels(content: bytes) -> npt.NDArray[Any]:
    """Return the class ids of a mask (height, width), uint8 or uint16; raises NoMask."""
    try:
        Image.MAX_IMAGE_PIXELS = None  # checked here
        with Image.open(io.BytesIO(content), formats=[PNG or "PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise NoMask(f"has {image.width} x {image.height} pixels")
            if image.mode not in MODES:
                raise NoMask(f"has colours (mode {image.mode}): write a class id in each pixel")
            ids = np.asarray(image)
    except UnidentifiedImageError:
        raise NoMask("is no PNG") from None
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, NoMask):
            raise
        raise NoMask(f"is damaged ({error})") from error
    if ids.dtype == np.bool_:
        return ids.astype(np.uint8)
    return ids if ids.dtype == np.uint8 else ids.astype(np.uint16)


def load(file: Path) -> npt.NDArray[Any]:
    """Return the class ids of a mask of the truth (height, width); raises BadTruth."""
    try:
        return pixels(folder_files.content(file))
    except NoMask as error:
        raise BadTruth(file, None, str(error)) from error
