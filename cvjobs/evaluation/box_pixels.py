"""Boxes in shares of their image, of predictions or of the truth, in the pixels of the other side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from cvjobs.common.errors import WrongUse
from cvjobs.evaluation.align import Images
from cvjobs.evaluation.ground_truth.types import ObjectTruth
from cvjobs.evaluation.metrics.objects import Bools, Detections, Floats, Ints, Truths
from cvjobs.evaluation.predictions import EvaluatedOutput, ResultsFile

_Objects = TypeVar("_Objects", Truths, Detections)
UNSIZED = "no numbers by size (AP_small and so on): the sizes of images are not known"


@dataclass(frozen=True, kw_only=True)
class InPixels:
    """Both sides in one unit, that of pixels where ``sized``, and what is to be said of that."""

    truths: Truths
    detections: Detections
    sized: bool = True
    notes: Sequence[str] = ()


def of(
    truth: ObjectTruth, predictions: EvaluatedOutput | ResultsFile, images: Images, detections: Detections
) -> InPixels:
    """Bring boxes to one unit; raises WrongUse where an image needs a size and nobody tells it.

    Args:
        truth: the objects that are there.
        predictions: whose the detections are.
        images: which image of the predictions is which of the truth.
        detections: those of images that the truth knows, by their place there.
    """
    truths = truth.objects
    relative = isinstance(predictions, ResultsFile) and predictions.relative
    if not truth.relative and not relative:
        return InPixels(truths=truths, detections=detections)
    found = np.unique(detections.image)
    wanted = np.union1d(found, truths.image) if truth.relative else found
    given = predictions.known_sizes if isinstance(predictions, ResultsFile) else predictions.sizes()
    given = np.zeros((len(images.place), 2)) if given is None else given
    sizes = _sizes(truth, given, images, wanted, relative)
    unknown = found[~_known(sizes)[found]]
    missed = wanted[~_known(sizes)[wanted]]
    if truth.relative and relative:
        if len(missed):
            return InPixels(truths=truths, detections=detections, sized=False, notes=[UNSIZED])
        return InPixels(truths=_scaled(truths, sizes), detections=_scaled(detections, sizes))
    if len(unknown):
        raise WrongUse(
            f"Boxes of {predictions.place if relative else 'the truth'} are in shares of images, and the size of "
            f"{truth.names[unknown[0]]!r} is not known: evaluate predictions that tell width and height of their "
            "images, or put the images beside the truth."
        )
    if relative:
        return InPixels(truths=truths, detections=_scaled(detections, sizes))
    # What has no detection is missed whatever its size, which is only that of a small or a large object.
    notes = [f"images without a prediction whose size is not known, taken as the median: {len(missed):,}"]
    usual = given[_known(given)] if _known(given).any() else sizes[_known(sizes)]
    sizes[~_known(sizes)] = np.median(usual, axis=0) if len(usual) else 1.0
    return InPixels(
        truths=_scaled(truths, sizes), detections=detections, notes=notes if len(missed) and len(usual) else []
    )


def _sizes(truth: ObjectTruth, given: Floats, images: Images, wanted: Ints, truth_first: bool) -> Floats:
    """Return the width and height of each image of the truth (n, 2) in pixels, 0 where nobody tells it.

    Those come first by which the boxes in pixels were made; ``given`` are those that the predictions tell.
    """
    told, listed = np.zeros((len(truth), 2)), np.zeros((len(truth), 2))
    paired = np.flatnonzero(images.place >= 0)
    told[images.place[paired]] = given[paired]
    if len(truth.sizes):
        listed = np.array(truth.sizes, np.float64)[:, ::-1]
    best, other = (listed, told) if truth_first else (told, listed)
    sizes: Floats = np.where(_known(best)[:, None], best, other)
    if truth.measure is not None:
        for at in wanted[~_known(sizes)[wanted]].tolist():
            sizes[at] = truth.measure(at)[::-1]
    return sizes


def _known(sizes: Floats) -> Bools:
    found: Bools = np.all(sizes > 0, axis=1)
    return found


def _scaled(objects: _Objects, sizes: Floats) -> _Objects:
    boxes = objects.boxes * np.tile(sizes, 2)[objects.image]
    return replace(objects, boxes=boxes, area=boxes[:, 2] * boxes[:, 3])
