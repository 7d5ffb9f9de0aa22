"""The recipes for a detector: the named ones, without what is about whole images and their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cvjobs.common.errors import WrongUse
from cvjobs.networks.detection.detection_losses import DetectionLosses
from cvjobs.training.recipe import losses
from cvjobs.training.recipe import recipe as recipes
from cvjobs.training.recipe.recipe import NOT_OF_BOXES, OF_BOXES, OF_CLASSES, Recipe
from cvjobs.training.recipe.setting import option_of

JITTER = (0.6, 1.4)
# What would move pixels without the boxes in them, or compares whole images.
WITHOUT: dict[str, Any] = {"aa": "none", "scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
_OTHERS = (*NOT_OF_BOXES, "denoise")
_OF_BOXES_ALONE = (*OF_BOXES, "loss", "focal_gamma", "class_weights", "mixup")  # what masks do not follow
_WITH = tuple(name for name in OF_CLASSES if name not in NOT_OF_BOXES)  # of classes, and of objects, too


def detection(name: str, *, masks: bool = False, **given: Any) -> Recipe:
    """Return a named recipe for a detector, with some settings replaced; one that is None stays the recipe's own.

    With ``masks`` it is for one that finds the masks of objects.

    Raises:
        WrongUse: as ``recipe.named``, and for a setting that a detector has not.
    """
    others = (*_OTHERS, *_OF_BOXES_ALONE) if masks else (*_OTHERS, "copy_paste")
    if wrong := [own for own in others if given.get(own) is not None]:
        what = "--kind instance" if masks else "--task detect"
        raise WrongUse(f"{option_of(wrong[0])} is not for {what}: leave it out.")
    own = {**given, **dict.fromkeys(OF_CLASSES), **WITHOUT, "scale_jitter": given.get("scale_jitter") or JITTER}
    plain = recipes.named(name, classes=False, boxes=True, **own)
    return replace(plain, **{name: given[name] for name in _WITH if given.get(name) is not None})


def losses_of(recipe: Recipe, counts: Sequence[int]) -> DetectionLosses:
    """Return what a detector is trained to lower; ``counts`` are the objects of each class in the training data."""
    kind = recipe.class_weights
    return DetectionLosses(
        classes=recipe.loss,
        boxes=recipe.box_loss,
        focal_gamma=recipe.focal_gamma,
        weights=tuple(losses.class_weights(kind, counts).tolist()) if kind != "none" else (),
    )
