"""Semantic segmentation: a network that gives logits of classes on a grid, and the class of each pixel from them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cvjobs.common import categories as common_categories
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.images.picture import Picture
from cvjobs.images.transform import Transform
from cvjobs.networks import torch_network
from cvjobs.networks.detection.settings import Settings
from cvjobs.networks.segmentation.class_maps import class_map
from cvjobs.networks.torch_network import Streams, out_of_memory
from cvjobs.networks.weights import Weights

MOST_CLASSES = 1 << 16  # that the 16 bits of a class map tell apart
SAMPLE = (64, 96)  # the size in pixels by which folded batch norms are compared with the others


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """A torch module from normalised (B, 3, H, W) floats to logits (B, classes, h, w), on the CPU.

    Raises WrongUse for more classes than a class map has numbers.
    """

    name: str
    weights: Weights
    transform: Transform
    categories: list[Category]
    module: nn.Module = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.categories) > MOST_CLASSES:
            raise WrongUse(
                f"{self.name} has {len(self.categories):,} classes with the background, and a class map holds at most "
                f"{MOST_CLASSES:,}: choose weights or --labels with fewer."
            )

    @property
    def facts(self) -> Mapping[str, Any]:
        """What identifies its results: the weights and the classes."""
        return {"model": self.name, **self.weights.facts, **common_categories.facts("semantic", self.categories)}

    @property
    def file(self) -> str:
        """Where the weights came from, empty where they are random."""
        return str(self.weights.file or "")

    def ruled(self, settings: Settings) -> Segmenter:
        """Return the segmenter as a user wants it; raises WrongUse for choices that only instances have."""
        without_objects(settings, self.name, "choose a Mask R-CNN with --model")
        return replace(self, transform=replace(self.transform, resize=settings.imgsz or self.transform.resize))

    def load(self, device: str, precision: str) -> SegmenterNetwork:
        """Return a copy of the model on a device, in ``fp32``, ``bf16`` or ``fp16``."""
        on_cpu = torch.device(device).type == "cpu"
        module = torch_network.folded(self.module, SAMPLE) if on_cpu else copy.deepcopy(self.module)
        return SegmenterNetwork(module, self.transform, torch.device(device), precision)


def without_objects(settings: Settings, name: str, remedy: str) -> None:
    """Raise WrongUse for choices among objects, of a model that gives every pixel a class."""
    for option, value in (
        ("--conf", settings.conf),
        ("--iou", settings.iou),
        ("--max-det", settings.max_det),
        ("--classes", settings.classes or None),
    ):
        if value is not None:
            raise WrongUse(
                f"{option} chooses among objects, and {name} gives every pixel a class: leave it out, or {remedy}."
            )


class SegmenterNetwork:
    """One segmenter on one device; several threads may call it at once."""

    def __init__(self, module: nn.Module, transform: Transform, device: torch.device, precision: str) -> None:
        self._device = device
        self._type = torch_network.TYPES[precision]
        self._module = module.eval().to(device, self._type, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._normalizer = torch_network.Normalizer(transform, device, self._type)
        self._streams = Streams(device)

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the size in which the model sees decoded pixels: that they have, for it takes them as they are."""
        return height, width

    def __call__(self, pictures: Sequence[Picture]) -> list[NDArray[np.uint8] | NDArray[np.uint16] | None]:
        """Return the class of each pixel of each picture's source, (height, width); None where logits aren't finite.

        Raises:
            MemoryError: they are too many for the device.
        """
        try:
            with torch.inference_mode(), self._streams.own():
                return self._maps(pictures)
        except RuntimeError as error:
            reason = out_of_memory(error)
            if not reason:
                raise
        # Raised out here because the traceback of the first error would keep the batch's tensors alive.
        raise MemoryError(reason)

    def with_logits(self, picture: Picture) -> tuple[NDArray[np.uint8] | NDArray[np.uint16] | None, Tensor]:
        """Return what a call returns of a picture, and the float32 logits (1, classes, h, w) that it follows from."""
        with torch.inference_mode(), self._streams.own():
            logits = self._logits([picture])
            return self._classes(logits, [picture])[0], logits.float()

    def _logits(self, pictures: Sequence[Picture]) -> Tensor:
        pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures])).to(self._device)
        images = self._normalizer(pixels.permute(0, 3, 1, 2))
        logits: Tensor = self._module(images.contiguous(memory_format=torch.channels_last))
        return logits

    def _maps(self, pictures: Sequence[Picture]) -> list[NDArray[np.uint8] | NDArray[np.uint16] | None]:
        return self._classes(self._logits(pictures), pictures)

    def _classes(
        self, logits: Tensor, pictures: Sequence[Picture]
    ) -> list[NDArray[np.uint8] | NDArray[np.uint16] | None]:
        seen = pictures[0].pixels.shape[0], pictures[0].pixels.shape[1]
        finite = logits.isfinite().flatten(1).all(1).tolist()
        return [
            class_map(one.float().contiguous(), seen, (picture.height, picture.width)).cpu().numpy() if fine else None
            for one, picture, fine in zip(logits, pictures, finite, strict=True)
        ]
