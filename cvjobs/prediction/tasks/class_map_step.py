"""The step of ``segment`` for models that give every pixel a class: class maps and areas as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from cvjobs.common.categories import Category
from cvjobs.common.failures import Failure
from cvjobs.dataset.schema import SCHEMAS
from cvjobs.images.masks import png
from cvjobs.images.picture import Picture
from cvjobs.prediction.engine.task import Columns

SCHEMA = SCHEMAS["semantic"]
# An image of 1 x 1000 pixels would be one of 520 x 520,000 for the model.
LONGEST = 64

_NONFINITE = Failure("infer", "infer_nonfinite", "the scores of the classes hold NaN or infinity")
_TOO_LONG = Failure("infer", "infer_error", f"one side is over {LONGEST} times as long as the other: cut the image up")


class ClassMapper(Protocol):
    """A loaded network that gives each pixel of pictures of equal shape a class; None for no finite numbers."""

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """See ``PictureStep``."""

    def __call__(self, pictures: Sequence[Picture]) -> Sequence[NDArray[np.uint8] | NDArray[np.uint16] | None]:
        """Return the class of each pixel of each picture's source, (height, width)."""


class ClassMaps:
    """A loaded network as a step of the engine."""

    def __init__(self, network: ClassMapper, categories: Sequence[Category]) -> None:
        self._network = network
        self._names = {category.id: category.name for category in categories}

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the size in which the model sees decoded pixels of that size."""
        return self._network.shape(height, width)

    def __call__(self, pictures: Sequence[Picture]) -> Columns:
        """Return the class maps of pictures of equal shape, and how many pixels each class has."""
        sides = [picture.pixels.shape[:2] for picture in pictures]
        long = [i for i, (height, width) in enumerate(sides) if max(height, width) > LONGEST * min(height, width)]
        some = [picture for i, picture in enumerate(pictures) if i not in long]
        looked = iter(self._network(some) if some else [])
        maps = [None if i in long else next(looked) for i in range(len(pictures))]
        columns = [
            [png.encode(found) if found is not None else None for found in maps],
            [self._areas(found) if found is not None else None for found in maps],
        ]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
        failures = {i: _NONFINITE for i, found in enumerate(maps) if found is None}
        return Columns(arrays, failures | dict.fromkeys(long, _TOO_LONG))

    def _areas(self, found: NDArray[Any]) -> list[dict[str, Any]]:
        counted = found if found.dtype == np.uint8 else found.astype(np.int32)  # torch counts no uint16
        pixels = torch.bincount(torch.from_numpy(counted).flatten()).numpy()
        order = np.argsort(-pixels, kind="stable")
        return [
            {"category_id": i, "label": self._names[i], "pixels": int(pixels[i])} for i in order.tolist() if pixels[i]
        ]
