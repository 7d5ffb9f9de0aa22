"""The truth of instances, a mask for each object: COCO's polygons and run lengths, and YOLO's polygons.

The files are read by the code of ``cvjobs eval``; objects whose mask has no pixels are left out, and named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval.core import mask as rles

from cvjobs.common.errors import WrongUse
from cvjobs.evaluation.ground_truth import coco, coco_records, records, yolo
from cvjobs.evaluation.ground_truth.records import Record
from cvjobs.evaluation.ground_truth.types import ObjectTruth
from cvjobs.evaluation.metrics.objects import Bools, Rle

KNOWN = "COCO JSON with polygons or run lengths, or a folder of YOLO's txt files with polygons"
POINTS = 6  # numbers of the smallest polygon
_NOTHING: Rle = {"size": [1, 1], "counts": b"1"}  # a mask without pixels


class MaskedTruth(NamedTuple):
    """A truth whose objects have masks, and the names of the images of those that were left out, one each."""

    known: ObjectTruth
    unmasked: list[str]


def of_coco(file: Path) -> MaskedTruth:
    """Return the objects of COCO's file; raises WrongUse where none has a mask, or one makes no sense.

    A polygon of two points is none. What is left out has no pixels, as an empty mask, or one beside its image.
    """
    content = records.load(file)
    left: list[Any] = []
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        found = [_outlined(one) for one in content["annotations"]]
        left = [one.get("image_id") for one, kept in zip(content["annotations"], found, strict=True) if kept is None]
        content = {**content, "annotations": [one for one in found if one is not None]}
    known = coco.of_content(file, content, masks=True)
    if known.objects.masks is None and (left or len(known.objects)):
        raise _without_masks(str(file))
    names = dict(zip(known.numbers, known.names, strict=True))
    unmasked = [names[at] for number in left if (at := records.identity(number)) is not None and at in names]
    if known.objects.masks is None:
        return MaskedTruth(known, unmasked)
    some = coco_records.sizes(list(known.objects.masks)) > 0
    gone = known.objects.image[~some].tolist()
    return MaskedTruth(_only(known, some), unmasked + [known.names[at] for at in gone])


def _outlined(annotation: Any) -> Any:
    """Return an annotation without polygons of two points; None for one whose mask has nothing else, or is none."""
    outline = annotation.get("segmentation") if isinstance(annotation, dict) else annotation
    if not isinstance(annotation, dict) or (outline and not isinstance(outline, list)):
        return annotation  # what makes no sense is refused by who reads it
    kept = [part for part in outline or [] if not isinstance(part, list) or len(part) >= POINTS]
    changed: Record = {**annotation, "segmentation": kept}
    return changed if kept else None


def of_folder(folder: Path) -> MaskedTruth:
    """Return the objects of YOLO's folder that are polygons; raises WrongUse where none is, or for another place.

    An image whose size cannot be read has masks without pixels, which are kept: it is a row of ``errors.parquet``.
    """
    if not yolo.fits(folder):
        raise _without_masks(str(folder))
    known = yolo.read(folder, True, ())
    some = np.array([len(outline) >= POINTS for outline in known.outlines], np.bool_)
    if len(some) and not some.any():
        raise _without_masks(str(folder))
    assert known.measure is not None
    sizes: dict[int, tuple[int, int]] = {}
    masks: list[Rle] = []
    for at, outline in zip(known.objects.image.tolist(), known.outlines, strict=True):
        if at not in sizes:
            sizes[at] = known.measure(at)
        masks.append(_polygon(outline, sizes[at]) if len(outline) >= POINTS else _NOTHING)
    unread = np.array([min(sizes[at]) <= 0 for at in known.objects.image.tolist()], np.bool_)
    some &= (coco_records.sizes(masks) > 0) | unread
    gone = [known.names[at] for at in known.objects.image[~some].tolist()]
    masked = replace(known, objects=replace(known.objects, masks=masks), outlines=())
    return MaskedTruth(_only(masked, some), gone)


def _polygon(outline: Sequence[float], size: tuple[int, int]) -> Rle:
    if min(size) <= 0:
        return _NOTHING
    points = np.asarray(outline, np.float64).reshape(-1, 2) * (size[1], size[0])
    made: Rle = rles.merge(rles.frPyObjects([points.ravel().tolist()], *size))
    return made


def _only(known: ObjectTruth, some: Bools) -> ObjectTruth:
    """Return a truth with some of its objects."""
    if some.all():
        return known
    objects = known.objects
    assert objects.masks is not None
    columns = {name: part[some] for name, part in vars(objects).items() if name != "masks"}
    kept = [mask for mask, keep in zip(objects.masks, some.tolist(), strict=True) if keep]
    return replace(known, objects=replace(objects, **columns, masks=kept))


def _without_masks(place: str) -> WrongUse:
    return WrongUse(
        f"{place} has no masks of objects: name {KNOWN}, or train a detector of its boxes with --task detect."
    )
