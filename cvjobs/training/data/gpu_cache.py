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
    """The images of a split, from wherever they are: ``taken`` may be sent to the device with other things."""

    def taken(self, which: NDArray[np.int64]) -> Tensor:
        """Return what stands for some images, by their number, on the CPU."""

    def there(self, taken: Tensor) -> Tensor:
        """Return images of what stands for them, uint8 (n, height, width, 3), both on the device."""


def settled(pictures: Pictures, device: torch.device, needed: int) -> TrainImages:
    """Return the images on a GPU where they leave the network the bytes it needs, else where they are mapped from."""
    if device.type != "cuda":
        return MappedImages(pictures)
    free, _ = torch.cuda.mem_get_info(device)
    if len(pictures) * int(np.prod(pictures.shape)) > SHARE * (free - needed):
        return MappedImages(pictures)
    return ResidentImages(pictures, device)


class MappedImages:
    """Images in files, which stand for themselves; see ``TrainImages``."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures

    def taken(self, which: NDArray[np.int64]) -> Tensor:
        """See ``TrainImages``."""
        return torch.from_numpy(self._pictures.gather(which))

    def there(self, taken: Tensor) -> Tensor:
        """See ``TrainImages``."""
        return taken


class ResidentImages:
    """Images that are all in the memory of a device, for which their numbers stand; see ``TrainImages``."""

    def __init__(self, pictures: Pictures, device: torch.device) -> None:
        self._pixels = torch.empty((len(pictures), *pictures.shape), dtype=torch.uint8, device=device)
        for start in range(0, len(pictures), BLOCK):
            which = np.arange(start, min(start + BLOCK, len(pictures)))
            self._pixels[start : start + BLOCK] = torch.from_numpy(pictures.gather(which)).to(device)

    def taken(self, which: NDArray[np.int64]) -> Tensor:
        """See ``TrainImages``."""
        return torch.from_numpy(which)

    def there(self, taken: Tensor) -> Tensor:
        """See ``TrainImages``."""
        return self._pixels.index_select(0, taken)
