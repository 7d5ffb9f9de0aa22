"""PNG masks, one an image, whose pixels are class ids: of one channel, or with a palette as VOC's."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.common.paths import path_bytes, path_text
from cvjobs.evaluation.ground_truth import folder_files
from cvjobs.evaluation.ground_truth.types import MAX_PIXELS, BadTruth, Complaint, PixelTruth, refuse
from cvjobs.networks import class_names

OURS = ".cvjobs-masks"  # what a folder of masks has that `segment` made
LISTS = ("codes.txt", "labels.txt", "class_names.txt")  # such as CamVid's; classes.txt is the truth's own
MODES = ("1", "L", "P", "I;16", "I")
DEPTH, GRAY = 24, 0  # where a PNG tells its bits, and after them its kind; the kind without colours
SHADES = {2: 85, 4: 17}  # what a decoder multiplies values of few bits with
PNG = PngImagePlugin.PngImageFile.format


def fits(path: Path) -> bool:
    """Return whether a place is a folder with PNG files."""
    return path.is_dir() and folder_files.any_below(path, ".png")


def read(path: Path, masks: bool, names: Sequence[str], bad: Complaint = refuse) -> PixelTruth:  # noqa: ARG001 - that is what they are
    """Return the masks of a folder, unopened; the line number of a name, from 0, is its class id.

    ``segment --masks-dir`` writes ``a.jpg.png`` for ``a.jpg``, and ``%XX`` for what its name must not hold.
    """
    found = folder_files.below(path, ".png")
    known = [Category(at, name) for at, name in enumerate(folder_files.class_names(path, names))]
    if not known and (path / OURS).is_dir():
        known = _ours(path / OURS / "manifest.parquet")
    beside, names_file = ([], None) if known else _beside(path)
    images = [folder_files.name_of(file, path) for file in found]
    if (path / OURS).is_dir():
        images = [path_text(unquote_to_bytes(path_bytes(name))) for name in images]
    return PixelTruth(
        format="masks",
        names=images,
        endings=folder_files.whole(images),
        files=found,
        load=lambda at: load(found[at]),
        categories=known,
        named=bool(known),
        beside=beside,
        names_file=names_file,
    )


def _ours(file: Path) -> list[Category]:
    """Return the classes that the manifest of ``segment --masks-dir`` has; none where it is of an earlier version."""
    try:
        metadata = pq.read_schema(file).metadata or {}
        return [Category(int(id_), str(name)) for id_, name in json.loads(metadata.get(b"cvjobs.categories", b"[]"))]
    except (pa.ArrowException, OSError, TypeError, ValueError):
        return []


def _beside(folder: Path) -> tuple[list[Category], Path | None]:
    """Return the names that a list near the masks has for their numbers, which may be those of other files."""
    for place in (folder, *list(folder.absolute().parents)[:2]):
        for name in LISTS:
            with suppress(WrongUse):
                if (place / name).is_file():
                    found = class_names.read(str(place / name))
                    return [Category(at, line) for at, line in enumerate(found)], place / name
    return [], None


class NoMask(ValueError):
    """A PNG does not hold class ids."""


def pixels(content: bytes) -> npt.NDArray[Any]:
    """Return the class ids of a mask (height, width), uint8 or uint16; raises NoMask.

    Ids of two and four bits are the bits, not the shades they stand for.
    """
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
    depth, kind = content[DEPTH], content[DEPTH + 1]
    if kind == GRAY and depth in SHADES:
        ids = ids // SHADES[depth]
    return ids if ids.dtype == np.uint8 else ids.astype(np.uint16)


def load(file: Path) -> npt.NDArray[Any]:
    """Return the class ids of a mask of the truth (height, width); raises BadTruth."""
    try:
        return pixels(folder_files.content(file))
    except NoMask as error:
        raise BadTruth(file, None, str(error), "mask_bad") from error
