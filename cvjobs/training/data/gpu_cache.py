"""Small data sets live on the GPU: a step then waits for no disk and no copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvjobs.training.data.decoded import Pictures
from cvjobs.training.data.whole_pictures import WholePictures
from cvjobs.training.recipe.whole_crops import PackedPictures

SHARE = 0.5  # of the memory that is free beside what the network needs, for estimates are no promises
BLOCK = 1024  # images copied at once


Given = Tensor | Sequence[Tensor] | PackedPictures
"""Images as ``Augment`` takes them: uint8 (n, 3, height, width), or whole pictures."""


class TrainImages(Protocol):
    """The images of a split, from wherever they are: ``taken`` may be sent to the device with other things."""

    def taken(self, which: NDArray[np.int64]) -> Any:
        """Return what stands for some images, by their number, on the CPU: tensors, or records of them."""

    def there(self, taken: Any) -> Given:
        """Return images of what stands for them, both on the device."""


def mapped(pictures: Pictures | WholePictures, device: torch.device) -> TrainImages:
    """Return images that stay in the files from which they are mapped."""
    if isinstance(pictures, Pictures):
        return MappedImages(pictures)
    return MappedPictures(pictures) if device.type == "cpu" else SentPictures(pictures)


def settled(pictures: Pictures | WholePictures, device: torch.device, needed: int) -> TrainImages:
    """Return the images on a GPU where they leave the network the bytes it needs, else where they are mapped from."""
    if device.type != "cuda":
        return mapped(pictures, device)
    free, _ = torch.cuda.mem_get_info(device)
    if pictures.nbytes > SHARE * (free - needed):
        return mapped(pictures, device)
    return ResidentImages(pictures, device) if isinstance(pictures, Pictures) else ResidentPictures(pictures, device)


class MappedImages:
    """Images in files, which stand for themselves; see ``TrainImages``."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures

    def taken(self, which: NDArray[np.int64]) -> Tensor:
        """See ``TrainImages``."""
        return torch.from_numpy(self._pictures.gather(which))

    def there(self, taken: Tensor) -> Tensor:
        """See ``TrainImages``."""
        return taken.permute(0, 3, 1, 2)


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
        return self._pixels.index_select(0, taken).permute(0, 3, 1, 2)


class MappedPictures:
    """Whole pictures in files, for a CPU that looks at them there; see ``TrainImages``."""

    def __init__(self, pictures: WholePictures) -> None:
        self._pictures = pictures

    def taken(self, which: NDArray[np.int64]) -> list[Tensor]:
        """See ``TrainImages``."""
        return self._pictures.some(which)

    def there(self, taken: list[Tensor]) -> list[Tensor]:
        """See ``TrainImages``."""
        return taken


class SentPictures:
    """Whole pictures in files, of which each step's are sent to a device; see ``TrainImages``."""

    def __init__(self, pictures: WholePictures) -> None:
        self._pictures = pictures

    def taken(self, which: NDArray[np.int64]) -> PackedPictures:
        """See ``TrainImages``."""
        return self._pictures.packed(which)

    def there(self, taken: PackedPictures) -> PackedPictures:
        """See ``TrainImages``."""
        return taken


class ResidentPictures:
    """Whole pictures that are all in the memory of a device, for which their places there stand."""

    def __init__(self, pictures: WholePictures, device: torch.device) -> None:
        self._pixels = torch.empty(pictures.nbytes, dtype=torch.uint8, device=device)
        self._places = torch.empty(len(pictures), 3, dtype=torch.int64)
        end = 0
        for start in range(0, len(pictures), BLOCK):
            some = pictures.packed(np.arange(start, min(start + BLOCK, len(pictures))))
            self._pixels[end : end + len(some.pixels)] = some.pixels.to(device)
            some.places[:, 0] += end
            self._places[start : start + BLOCK] = some.places
            end += len(some.pixels)

    def taken(self, which: NDArray[np.int64]) -> Tensor:
        """See ``TrainImages``."""
        return self._places[torch.from_numpy(which)]

    def there(self, taken: Tensor) -> PackedPictures:
        """See ``TrainImages``."""
        return PackedPictures(pixels=self._pixels, places=taken)
