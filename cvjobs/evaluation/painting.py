"""Class maps of a truth that has objects: annotations painted in the order of the file, later ones over earlier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cvjobs.common import class_labels
from cvjobs.common.categories import BACKGROUND, Category
from cvjobs.common.errors import WrongUse
from cvjobs.evaluation.ground_truth.types import MAX_PIXELS, NOTHING, ObjectTruth, PixelTruth
from cvjobs.evaluation.predictions import Predictions
from cvjobs.evaluation.void import Void
from cvjobs.images.masks import rle


def painted(truth: ObjectTruth, predictions: Predictions, void: Void) -> PixelTruth:
    """Return objects as class maps, each made when it is asked for.

    What no annotation covers is the background where the model has such a class, and else does not count. Raises
    WrongUse where there are no masks, where an image has no size, or where a person says what does not count.
    """
    objects = truth.objects
    masks = objects.masks or []
    if len(objects) > len(masks):
        raise WrongUse(
            f"The truth has no masks, and {predictions.place} holds class maps: name a truth with `segmentation`."
        )
    if void.chosen:
        raise WrongUse("--void and --ignore are for values in PNG masks: leave them out, annotations say what counts.")
    if len(truth.categories) >= NOTHING:
        raise WrongUse(f"The truth has {len(truth.categories):,} classes, and class maps have at most {NOTHING - 1:,}.")
    for name, (height, width) in zip(truth.names, truth.sizes, strict=True):
        if not 0 < height * width <= MAX_PIXELS or min(height, width) <= 0:
            raise WrongUse(f"The truth gives {name!r} no usable width and height: class maps need them.")
    categories, blank = _with_background(_named(truth, predictions), predictions.categories)
    order = np.argsort(objects.image, kind="stable")
    limits = np.searchsorted(objects.image[order], np.arange(len(truth) + 1))

    def load(at: int) -> npt.NDArray[Any]:
        height, width = truth.sizes[at]
        found = np.full((height, width), blank, np.uint16)
        for number in order[limits[at] : limits[at + 1]].tolist():
            crop, (top, left) = rle.decode_crop(masks[number]["counts"].decode("ascii"), height, width)
            found[top : top + crop.shape[0], left : left + crop.shape[1]][crop > 0] = objects.category[number]
        return found

    rest = "do not count, as the model has no background" if blank == NOTHING else f"are {categories[blank].name!r}"
    return PixelTruth(
        format=truth.format,
        names=truth.names,
        endings=truth.endings,
        notes=[*truth.notes, f"areas without an annotation {rest}"],
        files=[Path(name) for name in truth.names],
        load=load,
        categories=categories,
        named=truth.named,
        painted=True,
    )


def _named(truth: ObjectTruth, predictions: Predictions) -> list[Category]:
    """Return the classes of the truth with names: without any those that the model has for their ids."""
    known = {} if truth.named else {category.id: category.name for category in predictions.categories}
    return [Category(c.id, c.name or known.get(c.id, f"class {c.id}")) for c in truth.categories]


def _with_background(known: list[Category], predicted: list[Category]) -> tuple[list[Category], int]:
    """Return the classes, with the model's background where it has one, and the place of that, NOTHING for none."""
    own = next((category for category in predicted if _is_background(category)), None)
    if own is None:
        return known, NOTHING
    at = next((at for at, category in enumerate(known) if _is_background(category)), None)
    if at is not None:
        return known, at
    ids = {category.id for category in known}
    return [*known, Category(max(ids) + 1 if own.id in ids else own.id, own.name)], len(known)


def _is_background(category: Category) -> bool:
    return class_labels.spelling(category.name) == class_labels.spelling(BACKGROUND)
