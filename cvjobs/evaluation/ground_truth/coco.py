"""COCO's JSON: images, categories and annotations with boxes, and polygons or run lengths for masks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rles

from cvjobs.common.categories import Category
from cvjobs.evaluation.ground_truth.types import BadTruth, ObjectTruth
from cvjobs.evaluation.metrics.objects import Bools, Floats, Ints, Rle, Truths
from cvjobs.images.decode import MAX_SIDE

Record = dict[str, Any]
LARGEST_ID = 1 << 62


def fits(path: Path) -> bool:
    """Return whether a place looks like COCO's JSON."""
    return path.is_file() and path.suffix.lower() == ".json"


def read(path: Path, masks: bool, names: Sequence[str] = ()) -> ObjectTruth:  # noqa: ARG001 - the file has names
    """Return the objects of a file, with their masks where they are asked for and any has one; raises BadTruth.

    Annotations are in the order of the file, images and categories in that of their ids.
    """
    content = load(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _KEYS):
        raise BadTruth(path, None, f"is no COCO annotation file: it has no lists {', '.join(_KEYS)}")
    images, categories, annotations = (content[key] for key in _KEYS)
    numbers, shape, files = read_images(path, images)
    ids = column(path, categories, "category", "id", np.int64)
    image = positions(path, numbers, column(path, annotations, "annotation", "image_id", np.int64), "image_id")
    order = np.argsort(ids, kind="stable")
    category = positions(path, ids[order], column(path, annotations, "annotation", "category_id", np.int64), "category")
    crowd = column(path, annotations, "annotation", "iscrowd", np.int64, 0).astype(np.bool_)
    shapes = None
    outlines = [annotation.get("segmentation") for annotation in annotations] if masks else []
    if any(outlines):
        of = image.tolist()
        shapes = [rle(path, f"annotation {n + 1}", outline, shape[of[n]]) for n, outline in enumerate(outlines)]
    corners = boxes(path, annotations, shapes)
    return ObjectTruth(
        format="coco",
        names=files,
        numbers=numbers.tolist(),
        categories=[Category(int(ids[i]), str(categories[i].get("name", ""))) for i in order],
        named=all(category.get("name") for category in categories),
        objects=Truths(
            image=image,
            category=category,
            boxes=corners,
            area=areas(path, annotations, corners, shapes),
            crowd=crowd,
            ignored=crowd,
            unnumbered=_unnumbered(annotations),
            masks=shapes,
        ),
    )


_KEYS = ("images", "categories", "annotations")


def load(path: Path) -> Any:
    """Return the content of a JSON file; raises BadTruth where it is none."""
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise BadTruth(path, error.lineno, f"is no JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, a number of thousands of digits, a nest of brackets
        raise BadTruth(path, None, f"is no JSON that can be read ({type(error).__name__})") from error
    except OSError as error:
        raise BadTruth(path, None, f"cannot be read ({error.strerror})") from error


def read_images(path: Path, images: list[Record]) -> tuple[Ints, list[tuple[int, int]], list[str]]:
    """Return the ids of images, ascending, their (height, width), (0, 0) where none is given, and their file names."""
    numbers = column(path, images, "image", "id", np.int64)
    order = np.argsort(numbers, kind="stable")
    if len(np.unique(numbers)) < len(numbers):
        raise BadTruth(path, None, "gives one id to several images")
    height, width = (column(path, images, "image", side, np.int64, 0).tolist() for side in ("height", "width"))
    return numbers[order], [(height[i], width[i]) for i in order], [str(images[i].get("file_name", "")) for i in order]


def column(path: Path, records: list[Record], what: str, key: str, kind: type, default: Any = None) -> Any:
    """Return one number of each record, (n,); raises BadTruth that names the first record without a fitting one."""
    try:
        values = np.array([record.get(key, default) for record in records], np.float64)
        if values.ndim == 1 and np.isfinite(values).all() and (np.abs(values) < LARGEST_ID).all():
            return values.astype(kind)
    except (AttributeError, OverflowError, TypeError, ValueError):
        pass
    number = next(n for n, r in enumerate(records) if not isinstance(r, dict) or not _number(r.get(key, default)))
    raise BadTruth(path, None, f"has no usable '{key}' in {what} {number + 1} of {len(records):,}")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < LARGEST_ID


def positions(path: Path, known: Ints, ids: Ints, what: str) -> Ints:
    """Return where ids are in ``known``, which is ascending; raises BadTruth for one that is not."""
    if not len(ids):
        return ids
    at = np.searchsorted(known, ids)
    missing = np.flatnonzero(known[np.minimum(at, len(known) - 1)] != ids) if len(known) else np.arange(len(ids))
    if len(missing):
        raise BadTruth(path, None, f"has an annotation with the {what} {ids[missing[0]]}, which it does not describe")
    return at


def boxes(path: Path, records: list[Record], masks: list[Rle] | None) -> Floats:
    """Return the boxes of records (n, 4), of its mask for one without; raises BadTruth."""
    given = [record.get("bbox") for record in records]
    if masks is not None:
        given = [rles.toBbox(mask).tolist() if box is None else box for box, mask in zip(given, masks, strict=True)]
    try:
        values = np.array(given, np.float64).reshape(len(given), 4)
        if np.isfinite(values).all() and (values[:, 2:] >= 0).all():
            return values
    except (OverflowError, TypeError, ValueError):
        pass
    number = next(n for n, box in enumerate(given) if not _box(box))
    raise BadTruth(path, None, f"has a bbox that is no [x, y, width, height] in record {number + 1} of {len(given):,}")


def _box(box: Any) -> bool:
    try:
        values = np.array(box, np.float64)
    except (OverflowError, TypeError, ValueError):
        return False
    return bool(values.shape == (4,) and np.isfinite(values).all() and (values[2:] >= 0).all())


def areas(path: Path, annotations: list[Record], boxes: Floats, masks: list[Rle] | None) -> Floats:
    """Return the areas that annotations give, or else those of their masks or boxes, in pixels (n,)."""
    if all(annotation.get("area") is not None for annotation in annotations):
        given: Floats = column(path, annotations, "annotation", "area", np.float64)
        return given
    return np.asarray(boxes[:, 2] * boxes[:, 3]) if masks is None else sizes(masks)


def sizes(masks: list[Rle]) -> Floats:
    """Return the number of pixels of masks (n,)."""
    return np.array(rles.area(masks) if masks else [], np.float64)


def _unnumbered(annotations: list[Record]) -> Bools:
    return np.array([annotation.get("id") == 0 for annotation in annotations], np.bool_)


def rle(path: Path, what: str, outline: Any, size: tuple[int, int]) -> Rle:
    """Return a mask, given as polygons or as run lengths, for an image of (height, width); raises BadTruth."""
    try:
        if isinstance(outline, list) and outline and min(size) > 0 and max(size) <= MAX_SIDE:
            points = [np.array(polygon, np.float64) for polygon in outline]
            if any(len(p) < 4 or len(p) % 2 or not (np.abs(p) <= 2 * MAX_SIDE).all() for p in points):
                raise ValueError("a polygon without points, or with one far away")  # it is walked pixel by pixel
            merged: Rle = rles.merge(rles.frPyObjects(outline, *size))
            return merged
        if isinstance(outline, dict):
            if isinstance(outline["counts"], list):
                outline = rles.frPyObjects(outline, *size)
            counts = outline["counts"]
            return {"size": list(outline["size"]), "counts": counts.encode() if isinstance(counts, str) else counts}
    except Exception as error:
        raise BadTruth(path, None, f"has a segmentation that makes no sense in {what} ({error})") from error
    raise BadTruth(path, None, f"has no usable segmentation in {what}")
