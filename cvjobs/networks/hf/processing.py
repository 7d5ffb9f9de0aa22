"""The image processors of transformers on our pixels: a model sees what its own one makes of each image alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvjobs.common.errors import WrongUse
from cvjobs.images.picture import Pixels
from cvjobs.networks.hf.image_processor import LARGEST, image_processor
from cvjobs.networks.hf.repository import PROCESSOR, Repository

TOO_THIN = (1, 1)  # the shape of pictures of which nothing is left at the size that the model wants


@dataclass(frozen=True)
class ImageProcessing:
    """A processor of transformers on tensors (its torchvision backend); several threads call it at once.

    ``size`` is the size in pixels that it resizes to, in its words, such as ``shortest_edge``.
    """

    processor: Any
    size: dict[str, int]

    def resized(self, side: int) -> ImageProcessing:
        """Return one that resizes to another size: the shortest length in it becomes ``side`` pixels."""
        factor = side / min(self.size.values())
        return replace(self, size={name: round(length * factor) for name, length in self.size.items()})

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) in which the model sees a picture; windows count below each other."""
        image = torch.empty(3, height, width, dtype=torch.uint8, device="meta")
        try:
            pixels = self._processed([image], do_rescale=False, do_normalize=False)["pixel_values"]
        except (RuntimeError, ValueError):
            return TOO_THIN
        return sum(int(one.shape[-2]) for one in pixels), int(pixels[0].shape[-1])

    def __call__(self, pixels: Sequence[Pixels], device: torch.device) -> dict[str, Any]:
        """Return what the model takes of pictures, uint8 (height, width, 3), of equal ``shape``, on a device.

        ``pixel_values`` (B, 3, H, W) are float32; of a model that looks at windows of a picture they are those of all
        pictures, and ``patch_offsets`` tell of each its picture, its first and its last pixel along the longer side.
        """
        images = [torch.from_numpy(one).to(device).permute(2, 0, 1).contiguous() for one in pixels]
        made: dict[str, Any] = dict(self._processed(images))
        return made

    def _processed(self, images: list[Tensor], **more: Any) -> Any:
        return self.processor(images, input_data_format="channels_first", return_tensors="pt", size=self.size, **more)


def of(repository: Repository) -> ImageProcessing:
    """Return the processor of a repository; raises WrongUse where it has none, or none that makes sense."""
    made = image_processor(repository)
    size = {name: int(length) for name, length in dict(made.size or {}).items() if length}
    if not size or not 0 < min(size.values()) <= LARGEST:
        raise WrongUse(f"The {PROCESSOR} of {repository.said} names no size that can be: choose another model.")
    processing = ImageProcessing(made, size)
    try:
        values = torch.as_tensor(processing([np.full((64, 64, 3), 128, np.uint8)], torch.device("cpu"))["pixel_values"])
        why = "" if values.isfinite().all() else "its numbers are not finite"
    except Exception as error:  # noqa: BLE001 - whatever the library trips over in a file that anyone wrote
        why = " ".join(str(error).split())[:200] or type(error).__name__
    if why:
        raise WrongUse(
            f"The {PROCESSOR} of {repository.said} prepares no image ({why}): choose another model or revision."
        )
    return processing
