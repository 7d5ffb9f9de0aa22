"""One decoded image on its way to a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """One decoded image: its pixels, uint8 (h, w, 3), as the transform left them, and the upright source's size."""

    pixels: Pixels
    height: int
    width: int
