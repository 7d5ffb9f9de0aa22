"""What the tests of training segmenters share: small pictures of squares, with their masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = ((40, 40, 40), (220, 60, 60), (60, 220, 60))
SIZE = (48, 64)
VOID = 255


def picture(random: np.random.Generator) -> tuple[Any, Any]:
    """A picture (48, 64, 3) with a red and a green square on grey, and its mask, the first row void."""
    image, mask = np.full((*SIZE, 3), COLOURS[0], np.uint8), np.zeros(SIZE, np.uint8)
    for number in (1, 2):
        top, left = random.integers(0, SIZE[0] - 18), random.integers(0, SIZE[1] - 18)
        image[top : top + 18, left : left + 18] = COLOURS[number]
        mask[top : top + 18, left : left + 18] = number
    mask[0] = VOID
    return (image + random.integers(0, 20, image.shape)).clip(0, 255).astype(np.uint8), mask


def folder(root: Path, train: int = 8, val: int = 4, seed: int = 0, times: int = 1) -> Path:
    """Return a folder with train/images, train/masks and the same of val; so many ``times`` as large."""
    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number in range(count):
            image, mask = (one.repeat(times, 0).repeat(times, 1) for one in picture(random))
            Image.fromarray(image).save(root / split / "images" / f"{number}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{number}.png")
    return root
