"""Masks of objects painted into small pictures of a training's page, each in the colour of its class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cvjobs.html import palette

OPAQUE = 0.55


def painted(picture: NDArray[np.uint8], masks: Sequence[NDArray[np.uint8]], labels: Sequence[int]) -> Image.Image:
    """Return a picture (h, w, 3) with masks (h, w) of 0 and 1 painted over it, the last above."""
    mixed = picture.astype(np.float32)
    for mask, label in zip(masks, labels, strict=True):
        inside = mask > 0
        mixed[inside] += OPAQUE * (np.array(palette.rgb(label + 1), np.float32) - mixed[inside])
    return Image.fromarray(mixed.round().astype(np.uint8))
