"""COCO's JSON: images, categories and annotations with boxes, and polygons or run lengths for masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rles

from cvjobs.evaluation.ground_truth.coco_records import categories_of, read_images, sizes
from cvjobs.evaluation.ground_truth.records import SHOWN, Record, column, ids, load, numbers, positions, sound
from cvjobs.evaluation.ground_truth.types import BadTruth, Complaint, ObjectTruth, refuse
from cvjobs.evaluation.metrics.objects import Bools, Floats, Id, Rle, Truths
from cvjobs.images.decode import MAX_SIDE
from cvjobs.images.masks import rle as image_masks_rle

FARTHEST = 1e9  # pixels from the corner of an image; the product of two is a number


def fits(path: Path) -> bool:
    """Return whether a place looks like COCO's JSON."""
    return path.is_file() and path.suffix.lower() == ".json"


def read(path: Path, masks: bool, names: Sequence[str] = (), bad: Complaint = refuse) -> ObjectTruth:  # noqa: ARG001 - the file has names
    """Return the objects of a file, with their masks where they are asked for and any has one; raises BadTruth.

    Annotations are in the order of the file, images and categories in that of their ids. Without categories the
    classes are the ids that annotations have.
    """
    return of_content(path, load(path), masks, bad)


def of_content(path: Path, content: Any, masks: bool, bad: Complaint = refuse) -> ObjectTruth:
    """Return what ``read`` does, given what ``records.load`` found in the file."""
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _KEYS):
        raise BadTruth(path, None, f"is no COCO annotation file: it has no lists {', '.join(_KEYS)}")
    about = read_images(path, content["images"])
    annotations = content["annotations"]
    masks = masks and any(isinstance(one, dict) and one.get("segmentation") for one in annotations)
    found: list[ObjectTruth] = []
    described = content.get("categories")

    def objects(some: list[Record]) -> None:
        found[:] = [_objects(path, about, described, some, masks)]

    kept = sound(annotations, objects, bad)
    if len(kept) < len(annotations):
        objects(kept)
    return found[0]


def _objects(
    path: Path,
    about: tuple[list[Id], list[tuple[int, int]], list[str]],
    described: Any,
    annotations: list[Record],
    masks: bool,
) -> ObjectTruth:
    """Return the objects of annotations; ``about`` is what ``read_images`` returns."""
    known, shape, files = about
    image = positions(
        path, {id_: at for at, id_ in enumerate(known)}, ids(path, annotations, "annotation", "image_id"), "image_id"
    )
    of = numbers(path, annotations, "annotation", "category_id")
    categories, notes = categories_of(path, described, of)
    category = positions(path, {c.id: at for at, c in enumerate(categories)}, of.tolist(), "category")
    crowd = column(path, annotations, "annotation", "iscrowd", np.int64, 0).astype(np.bool_)
    shapes = None
    if masks:
        outlines = [annotation.get("segmentation") for annotation in annotations]
        sizes_ = [shape[at] for at in image.tolist()]
        shapes = [rle(path, f"annotation {n + 1}", outline, sizes_[n]) for n, outline in enumerate(outlines)]
    corners = boxes(path, annotations, shapes)
    return ObjectTruth(
        format="coco",
        names=files,
        notes=notes,
        numbers=known,
        sizes=shape,
        categories=categories,
        named=any(category.name for category in categories),
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


_KEYS = ("images", "annotations")


def boxes(path: Path, records: list[Record], masks: list[Rle] | None) -> Floats:
    """Return the boxes of records (n, 4), that of its outline for one without; raises BadTruth."""
    given = [record.get("bbox") for record in records]
    for at in [at for at, box in enumerate(given) if box is None or box == []]:
        outline = records[at].get("segmentation")
        given[at] = rles.toBbox(masks[at]).tolist() if masks is not None else _around(outline)
    try:
        values = np.array(given, np.float64).reshape(len(given), 4)
        if (np.abs(values) < FARTHEST).all() and (values[:, 2:] >= 0).all():
            return values
    except (OverflowError, TypeError, ValueError):
        pass
    number = next(n for n, box in enumerate(given) if not _box(box))
    words = f"has a bbox that is no [x, y, width, height] in record {number + 1} of {len(given):,}"
    raise BadTruth(path, None, words, "box_bad")


def _box(box: Any) -> bool:
    try:
        values = np.array(box, np.float64)
    except (OverflowError, TypeError, ValueError):
        return False
    return bool(values.shape == (4,) and (np.abs(values) < FARTHEST).all() and (values[2:] >= 0).all())


def _around(outline: Any) -> list[float] | None:
    """Return the box around polygons or run lengths; None where they are neither."""
    try:
        if isinstance(outline, dict):
            box: list[float] = rles.toBbox(_lengths(outline)).tolist()
            return box
        points = np.concatenate([np.array(polygon, np.float64).reshape(-1, 2) for polygon in outline])
        return [*points.min(axis=0).tolist(), *np.ptp(points, axis=0).tolist()]
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError):
        return None


def areas(path: Path, annotations: list[Record], boxes: Floats, masks: list[Rle] | None) -> Floats:
    """Return the areas that annotations give, and else that of the mask or the box, in pixels (n,)."""
    given = np.array([annotation.get("area") is not None for annotation in annotations], np.bool_)
    said: Floats = column(path, annotations, "annotation", "area", np.float64, 0)
    if given.all():
        return said
    return np.where(given, said, boxes[:, 2] * boxes[:, 3] if masks is None else sizes(masks))


def _unnumbered(annotations: list[Record]) -> Bools:
    return np.array([annotation.get("id") == 0 for annotation in annotations], np.bool_)


def rle(path: Path, what: str, outline: Any, size: tuple[int, int]) -> Rle:
    """Return a mask, given as polygons or as run lengths, for an image of (height, width); raises BadTruth.

    A size of (0, 0) is not known: polygons need it.
    """
    try:
        if isinstance(outline, dict):
            return _lengths(outline, size)
        if isinstance(outline, list) and outline:
            if min(size) <= 0 or max(size) > MAX_SIDE:
                raise ValueError("its image has no usable width and height")
            points = [np.array(polygon, np.float64) for polygon in outline]
            if any(len(p) < 4 or len(p) % 2 or not (np.abs(p) <= 2 * MAX_SIDE).all() for p in points):
                raise ValueError("a polygon without points, or with one far away")  # it is walked pixel by pixel
            merged: Rle = rles.merge(rles.frPyObjects([p.tolist() for p in points], *size))
            return merged
    except Exception as error:
        why = " ".join(str(error).split())[:SHOWN]
        raise BadTruth(path, None, f"has a segmentation that makes no sense in {what} ({why})", "mask_bad") from error
    raise BadTruth(path, None, f"has no usable segmentation in {what}", "mask_bad")


def _lengths(outline: Record, size: tuple[int, int] = (0, 0)) -> Rle:
    """Return run lengths as compressed ones; raises ValueError where they are of another size than their image."""
    height, width = (int(side) for side in outline["size"])
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise ValueError(f"its size is {height} x {width}")
    if min(size) > 0 and (height, width) != tuple(size):
        raise ValueError(f"{height} rows and {width} columns in an image of {size[0]} and {size[1]}")
    counts = outline["counts"]
    if isinstance(counts, list):
        lengths = [int(count) for count in counts]
        left = height * width - sum(lengths)
        made: Rle = rles.frPyObjects({"size": [height, width], "counts": _whole(lengths, left)}, height, width)
        return made
    image_masks_rle.runs(counts, height, width)  # those of another sum are compared for ever
    return {"size": [height, width], "counts": counts.encode("ascii")}


def _whole(lengths: list[int], left: int) -> list[int]:
    """Return run lengths with the last run of zeros, which some tools leave out; raises ValueError."""
    if left < 0 or min(lengths, default=0) < 0:
        raise ValueError("the run lengths are not those of its size")
    if len(lengths) % 2:
        return [*lengths[:-1], lengths[-1] + left]
    return [*lengths, left] if left else lengths
