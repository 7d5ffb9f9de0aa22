"""Small data sets live on the GPU: a step then waits for no disk and no copy."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvjobs.training.data.decoded import Pictures

SHARE = 0.5  # of the memory that is free beside what the network needs, for estimates are no promises
BLOCK = 1024  # images copied at once


class TrainImages(Protocol):
    """The images of a split, from wherever they are."""

    def take(self, which: NDArray[np.int64]) -> Tensor:
        """Return some by their number, uint8 (n, height, width, 3), on the device or ready to be copied there."""


def settled(pictures: Pictures, device: torch.device, needed: int) -> TrainImages:
    """Return the images on a GPU where they leave the network the bytes it needs, else where they are mapped from."""
    if device.type != "cuda":
        return MappedImages(pictures, pinned=False)
    free, _ = torch.cuda.mem_get_info(device)
    if len(pictures) * int(np.prod(pictures.shape)) > SHARE * (free - needed):
        return MappedImages(pictures, pinned=True)
    return ResidentImages(pictures, device)


class MappedImages:
    """Images in files, copied for every step; see ``TrainImages``."""

    def __init__(self, pictures: Pictures, *, pinned: bool) -> None:
        self._pictures, self._pinned = pictures, pinned

    def take(self, which: NDArray[np.int64]) -> Tensor:
        """See ``TrainImages``; in pinned memory where that speeds the copy."""
        pixels = torch.from_numpy(self._pictures.gather(which))
        return pixels.pin_memory() if self._pinned else pixels


class ResidentImages:
    """Images that are all in the memory of a device; see ``TrainImages``."""

    def __init__(self, pictures: Pictures, device: torch.device) -> None:
        self._pixels = torch.empty((len(pictures), *pictures.shape), dtype=torch.uint8, device=device)
        for start in range(0, len(pictures), BLOCK):
            which = np.arange(start, min(start + BLOCK, len(pictures)))
            self._pixels[start : start + BLOCK] = torch.from_numpy(pictures.gather(which)).to(device)

    def take(self, which: NDArray[np.int64]) -> Tensor:
        """See ``TrainImages``."""
        return self._pixels[torch.from_numpy(which).to(self._pixels.device)]
