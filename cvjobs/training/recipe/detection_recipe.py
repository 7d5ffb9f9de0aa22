"""The recipes for a detector: the named ones, without what is about whole images and their classes."""

from __future__ import annotations

from typing import Any

from cvjobs.common.errors import WrongUse
from cvjobs.training.recipe import recipe as recipes
from cvjobs.training.recipe.recipe import NOT_OF_BOXES, OF_CLASSES, Recipe
from cvjobs.training.recipe.setting import option_of

JITTER = (0.6, 1.4)
# What would move pixels without the boxes in them, or compares whole images.
WITHOUT: dict[str, Any] = {"aa": "none", "scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
_OTHERS = (*NOT_OF_BOXES, "denoise")


def detection(name: str, *, masks: bool = False, **given: Any) -> Recipe:
    """Return a named recipe for a detector, with some settings replaced; one that is None stays the recipe's own.

    With ``masks`` it is for one that finds the masks of objects.

    Raises:
        WrongUse: as ``recipe.named``, and for a setting that a detector has not.
    """
    others = _OTHERS if masks else (*_OTHERS, "copy_paste")
    if wrong := [own for own in others if given.get(own) is not None]:
        what = "--kind instance" if masks else "--task detect"
        raise WrongUse(f"{option_of(wrong[0])} is not for {what}: leave it out.")
    own = {**given, **dict.fromkeys(OF_CLASSES), **WITHOUT, "scale_jitter": given.get("scale_jitter") or JITTER}
    return recipes.named(name, classes=False, boxes=True, **own)
