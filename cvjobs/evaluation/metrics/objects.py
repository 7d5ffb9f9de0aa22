"""Objects in images as arrays: those that are there, and those that a model found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Id = int | str  # of an image, as its file has it
Rle = dict[str, Any]  # COCO's compressed run lengths: "size" (height, width) and "counts" (bytes)


@dataclass(frozen=True, kw_only=True)
class Objects:
    """n objects; ``image`` (n,) and ``category`` (n,) are positions in lists that the caller has.

    ``boxes`` (n, 4) are x, y, width, height in pixels; ``area`` (n,) is in pixels; ``masks`` holds one for each
    object, or there are none.
    """

    image: Ints
    category: Ints
    boxes: Floats
    area: Floats
    masks: Sequence[Rle] | None = None

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True, kw_only=True)
class Truths(Objects):
    """Objects that are there.

    A ``crowd`` (n,) is a region of many: any number of detections may lie in it. What is ``ignored`` (n,), crowds
    among them, may be found or not. A match with what is ``unnumbered`` (n,) counts as none: that is how COCO's API
    treats an annotation with the id 0.
    """

    crowd: Bools
    ignored: Bools
    unnumbered: Bools


@dataclass(frozen=True, kw_only=True)
class Detections(Objects):
    """Objects that a model found, with ``score`` (n,)."""

    score: Floats

    def take(self, rows: Ints) -> Detections:
        """Return some of them, in this order."""
        chosen = {name: getattr(self, name)[rows] for name in ("image", "category", "boxes", "area", "score")}
        return replace(self, **chosen, masks=None if self.masks is None else [self.masks[row] for row in rows])
