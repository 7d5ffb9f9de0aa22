"""COCO's panoptic JSON: for each image a PNG, whose colours number segments, and what class each segment is.

The PNGs are in the folder beside the file that has its name; red + 256 green + 65,536 blue is a segment, 0 none.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cvjobs.evaluation.ground_truth.coco_records import categories_of, read_images, sizes
from cvjobs.evaluation.ground_truth.records import Record, ids, load, numbers, positions, sound
from cvjobs.evaluation.ground_truth.types import MAX_PIXELS, BadTruth, Complaint, ObjectTruth, refuse
from cvjobs.evaluation.metrics.objects import Id, Rle, Truths
from cvjobs.images.masks import rle

MARK = b'"segments_info"'


def fits(path: Path) -> bool:
    """Return whether a place is such a file, with such a folder beside it."""
    if path.suffix.lower() != ".json" or not path.is_file() or not path.with_suffix("").is_dir():
        return False
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(MARK) >= 0
    except (OSError, ValueError):  # empty, or not to be read: what is wrong with it is said where it is read
        return False


def read(path: Path, masks: bool, names: Sequence[str] = (), bad: Complaint = refuse) -> ObjectTruth:  # noqa: ARG001 - that is what it has
    """Return the segments of all images as objects with masks, read one image at a time; raises BadTruth."""
    content = load(path)
    annotations, images = (content.get(key) if isinstance(content, dict) else None for key in ("annotations", "images"))
    if not isinstance(annotations, list) or not isinstance(images, list):
        raise BadTruth(path, None, "is no COCO panoptic file: it has no lists images, annotations")
    about = read_images(path, images)
    described = content.get("categories")
    if bad is not refuse:
        annotations = sound(annotations, lambda some: _objects(path, about, described, some), bad)
    return _objects(path, about, described, annotations)


def _objects(
    path: Path,
    about: tuple[list[Id], list[tuple[int, int]], list[str]],
    described: Any,
    annotations: list[Record],
) -> ObjectTruth:
    """Return the segments of annotations; ``about`` is what ``read_images`` returns."""
    known, shape, files = about
    found = ids(path, annotations, "annotation", "image_id")
    image = positions(path, {id_: at for at, id_ in enumerate(known)}, found, "image_id")
    segments = [_segments(path, annotation) for annotation in annotations]
    of = numbers(path, [one for inside in segments for one in inside], "segment", "category_id")
    categories, notes = categories_of(path, described, of)
    category = positions(path, {c.id: at for at, c in enumerate(categories)}, of.tolist(), "category")
    outlines: list[Rle] = []
    shapes = list(shape)
    for at, annotation, inside in zip(image.tolist(), annotations, segments, strict=True):
        pixels = _pixels(path, annotation, shapes[at])
        shapes[at] = pixels.shape[0], pixels.shape[1]
        outlines += _masks(path, annotation, pixels, numbers(path, inside, "segment", "id").tolist())
    none = np.zeros(len(outlines), np.bool_)
    return ObjectTruth(
        format="panoptic",
        names=files,
        notes=notes,
        numbers=known,
        sizes=shapes,
        categories=categories,
        named=any(category.name for category in categories),
        objects=Truths(
            image=np.repeat(image, [len(inside) for inside in segments]),
            category=category,
            boxes=np.zeros((len(outlines), 4)),
            area=sizes(outlines),
            crowd=none,
            ignored=none,
            unnumbered=none,
            masks=outlines,
        ),
    )


def _segments(path: Path, annotation: Record) -> list[Record]:
    found = annotation.get("segments_info")
    if not isinstance(found, list) or not isinstance(annotation.get("file_name"), str):
        raise BadTruth(path, None, "has an annotation without file_name or segments_info")
    return found


def _pixels(path: Path, annotation: Record, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return the number of the segment at each pixel (height, width)."""
    file = path.with_suffix("") / annotation["file_name"]
    try:
        Image.MAX_IMAGE_PIXELS = None  # checked here
        with Image.open(file, formats=["PNG"]) as image:
            height, width = image.height, image.width
            if height * width > MAX_PIXELS or (min(size) > 0 and size != (height, width)):
                raise BadTruth(file, None, f"has {width} x {height} pixels, and its image {size[1]} x {size[0]}")
            if image.mode not in ("RGB", "RGBA"):
                raise BadTruth(file, None, f"has no colours (mode {image.mode}), which number segments")
            colours = np.asarray(image).astype(np.int64)
    except (OSError, SyntaxError, ValueError) as error:
        raise BadTruth(file, None, f"cannot be read ({getattr(error, 'strerror', None) or 'no whole PNG'})") from error
    return np.asarray(colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2])


def _masks(path: Path, annotation: Record, pixels: npt.NDArray[np.int64], segments: Sequence[int]) -> list[Rle]:
    found: list[Rle] = []
    for number in segments:
        mask = pixels == number
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if not len(rows):
            file = path.with_suffix("") / annotation["file_name"]
            raise BadTruth(file, None, f"has no pixel of the segment {number}")
        crop = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        text = rle.encode(crop, (int(rows[0]), int(columns[0])), (pixels.shape[0], pixels.shape[1]))
        found.append({"size": list(pixels.shape), "counts": text.encode("ascii")})
    return found
