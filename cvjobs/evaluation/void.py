"""Which value in the masks of a truth stands for pixels that do not count, and when only a person can say it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.evaluation.ground_truth.types import PixelTruth

USUAL = 255
LARGEST = 65535
WHITE = 1  # the class of what is white in a mask of black and white


@dataclass(frozen=True, kw_only=True)
class Void:
    """The ``value`` of pixels that do not count, None where all do; ``chosen`` tells whether a person said so."""

    value: int | None
    chosen: bool = True


def chosen(ignore: int | None, void: str | None) -> Void:
    """Return what ``--ignore`` and ``--void`` say; raises WrongUse where they say nothing or too much."""
    if void is None:
        return Void(value=USUAL if ignore is None else ignore, chosen=ignore is not None)
    if ignore is not None:
        raise WrongUse("--void and --ignore both say which pixels do not count: give one of them.")
    word = void.strip().lower()
    if word == "none":
        return Void(value=None)
    if not (word.isascii() and word.isdigit() and len(word) < 6 and int(word) <= LARGEST):
        raise WrongUse(f"--void {void} is no value of a pixel: give none, or a number from 0 to {LARGEST:,}.")
    return Void(value=int(word))


def ask(void: Void, truth: PixelTruth, known: Iterable[Category]) -> None:
    """Raise WrongUse where the usual value may as well be a class, and nobody has said which: a question."""
    if void.chosen or truth.painted:
        return
    choice = f"give --void none if {USUAL} is a class, or --void {USUAL} if these pixels do not count"
    if name := next((category.name for category in known if category.id == USUAL), None):
        raise WrongUse(f"{USUAL} in the masks is the class {name!r} or stands for pixels that do not count: {choice}.")
    met = values(truth.load, len(truth))
    if len(met) == 2 and USUAL in met:
        least = min(met)
        raise WrongUse(f"The masks, such as {truth.files[0]}, have no values but {least} and {USUAL}: {choice}.")


def is_black_and_white(void: Void, truth: PixelTruth, known: Iterable[Category]) -> bool:
    """Return whether all pixels count, and are 0 or 255, which is no class: then 255 is the class 1."""
    if truth.painted or void.value is not None or any(category.id == USUAL for category in known):
        return False
    met = values(truth.load, len(truth))
    return USUAL in met and met <= {0, USUAL}


def values(load: Callable[[int], npt.NDArray[Any]], count: int) -> set[int]:
    """Return the values in all masks, or as soon as two of them are not the usual void, those met so far."""
    met: set[int] = set()
    for at in range(count):
        met.update(np.unique(load(at)).tolist())
        if len(met - {USUAL}) > 1:
            break
    return met
