"""What a user may choose of a detector, checked against the model and its classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse, nearest
from cvjobs.common.fingerprint import facts

FLIP = "flip"
SCALES = (0.1, 10.0)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The choices as typed; None is the model's own. See ``cvjobs detect --help``."""

    conf: float | None = None
    iou: float | None = None
    max_det: int | None = None
    imgsz: int | None = None
    nms: str = "per-class"
    classes: str = ""
    tile: int | None = None
    overlap: float = 0.2
    tta: str = ""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How a detector looks at an image and what it keeps; all that changes its results besides its weights.

    ``conf``: detections score more than it. ``iou``: of two that overlap by more, the better is kept, within a class
    or, with ``nms`` "all-classes", whatever their classes. ``max_det``: the most that an image or tile keeps.
    ``classes``: the ids that are kept, all where empty. ``short`` and ``long``: an image is resized until its shorter
    side has ``short`` pixels or its longer ``long``; with ``fixed`` it is squashed to ``short`` × ``long`` (height,
    width). ``tile``: an image is looked at in squares of that side in pixels, each sharing ``overlap`` of its side with
    the next; 0 takes it whole. ``scales``: every one is looked at in these multiples of that size, and with ``flip``
    also mirrored.
    """

    conf: float
    iou: float
    max_det: int
    short: int
    long: int
    fixed: bool = False
    nms: str = "per-class"
    classes: tuple[int, ...] = ()
    tile: int = 0
    overlap: float = 0.0
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    @property
    def per_class(self) -> bool:
        """Whether only boxes of one class compete."""
        return self.nms == "per-class"

    @property
    def facts(self) -> dict[str, Any]:
        """The rules as JSON types."""
        return facts(self)


def chosen(settings: Settings, default: Rules, categories: Sequence[Category], model: str) -> Rules:
    """Return the rules that the choices come to with a model's defaults and classes.

    Raises:
        WrongUse: a class that the model does not know, a size for a model that has a fixed one, or a wrong value.
    """
    if default.fixed and settings.imgsz:
        raise WrongUse(
            f"{model} takes images of {default.short} × {default.long} pixels only: leave out --imgsz, "
            "or choose a model of another family."
        )
    if not 0 <= settings.overlap < 1:
        raise WrongUse(f"--overlap is a share of a tile's side, not {settings.overlap}: give at least 0 and below 1.")
    scales, flip = _augmented(settings.tta)
    if default.fixed and len(scales) > 1:
        raise WrongUse(f"{model} takes images of one size only: --tta can be {FLIP} alone.")
    short, long = default.short, default.long
    if settings.imgsz:
        short, long = settings.imgsz, round(settings.imgsz * default.long / default.short)
    return Rules(
        conf=default.conf if settings.conf is None else settings.conf,
        iou=default.iou if settings.iou is None else settings.iou,
        max_det=settings.max_det or default.max_det,
        short=short,
        long=long,
        fixed=default.fixed,
        nms=settings.nms,
        classes=_classes(settings.classes, categories, model),
        tile=settings.tile or 0,
        overlap=settings.overlap if settings.tile else 0.0,
        scales=scales,
        flip=flip,
    )


def _classes(typed: str, categories: Sequence[Category], model: str) -> tuple[int, ...]:
    """Return the ids of classes by name or id, in order."""
    ids = {category.name: category.id for category in categories}
    known = {str(category.id): category.id for category in categories} | ids
    found = set()
    for word in _words(typed):
        if word not in known:
            raise WrongUse(f"{model} knows no class {word!r}{nearest(word, ids)}: name some of its {len(ids)} classes.")
        found.add(known[word])
    return tuple(sorted(found))


def _augmented(typed: str) -> tuple[tuple[float, ...], bool]:
    """Return the scales, 1 among them, and whether each is also looked at mirrored."""
    words = _words(typed)
    scales = {1.0}
    for word in words:
        if word == FLIP:
            continue
        try:
            scale = float(word)
        except ValueError:
            scale = math.nan
        if not SCALES[0] <= scale <= SCALES[1]:
            raise WrongUse(
                f"--tta has {word!r}: give {FLIP}, scales from {SCALES[0]} to {SCALES[1]:g}, "
                f"or both, as in {FLIP},0.8,1.2."
            )
        scales.add(scale)
    return tuple(sorted(scales)), FLIP in words


def _words(typed: str) -> list[str]:
    return [word.strip() for word in typed.split(",") if word.strip()]
