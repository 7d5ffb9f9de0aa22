"""A classifier of torchvision or timm as a backbone: its feature maps at two depths, dilated as torchvision's are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cvjobs.common.errors import WrongUse
from cvjobs.networks import registry
from cvjobs.networks.torchvision import classifiers
from cvjobs.networks.torchvision.classifiers import BackboneClassifier

SHALLOW, DEEP = 8, 16  # pixels that a place of the two feature maps stands for, at most
SAMPLE = (128, 192)  # height and width of the image by which a layer's stride is measured
LAST = ("avgpool", "classifier", "fc", "head", "heads", "dropout", "AuxLogits", "aux1", "aux2")


@dataclass(frozen=True)
class _Stage:
    """A layer of a classifier: how many pixels a place of what it gives stands for, and its channels."""

    layer: nn.Module
    stride: int
    channels: int


class FeatureMaps(nn.Module):
    """The layers of a classifier up to its last feature map; ``channels`` are those of the shallow and the deep one.

    Called with (B, 3, H, W) it returns ``low`` (B, channels[0], H / 8, W / 8) and ``out`` (B, channels[1], H / 16,
    W / 16), which torchvision's ``high`` is, too.
    """

    def __init__(self, stages: list[_Stage]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(stage.layer for stage in stages))
        self._low = max(at for at, stage in enumerate(stages) if stage.stride <= SHALLOW)
        self.channels = stages[self._low].channels, stages[-1].channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the two feature maps."""
        found: dict[str, Tensor] = {}
        for at, layer in enumerate(self.layers):
            images = layer(images)
            if at == self._low:
                found["low"] = images
        return {**found, "out": images, "high": images}


class ListedMaps(nn.Module):
    """The same of a network that returns a list of maps, of which the last is the deep one."""

    def __init__(self, maps: nn.Module) -> None:
        super().__init__()
        self.maps = maps
        with torch.inference_mode():
            found = maps(torch.zeros(1, 3, *SAMPLE))
        self._low = max((at for at, one in enumerate(found) if _stride(one) <= SHALLOW), default=0)
        self.channels = found[self._low].shape[1], found[-1].shape[1]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the two feature maps."""
        found = self.maps(images)
        return {"low": found[self._low], "out": found[-1], "high": found[-1]}


def backbone(name: str, weights: str, seed: int) -> tuple[FeatureMaps | ListedMaps, BackboneClassifier]:
    """Return the feature maps of a classifier of torchvision, or ``family/NAME``, and what it was made from.

    Raises:
        WrongUse: there is no such classifier, its weights are not to be had, or it has no feature maps, as transformers
            have not.
    """
    if "/" in name:
        found, model = registry.find(name, "train")
        family: Any = found
        if not hasattr(family, "feature_maps"):
            raise WrongUse(
                f"{name} has no feature maps that a segmenter could be built on: choose a classifier of torchvision or "
                "timm as --backbone, such as mobilenet_v2 or timm/resnet18."
            )
        other: BackboneClassifier = family.feature_maps(model, weights, seed)
        return ListedMaps(other.module), other
    chosen = classifiers.with_weights(name, weights, seed)
    stages = list(_stages(chosen.module.eval(), name))
    _dilate(stages)
    return FeatureMaps(stages), chosen


def _stages(model: nn.Module, name: str) -> Iterator[_Stage]:
    """Yield the layers before the pooling; one that halves the image more than once is taken apart."""
    layers = [child for key, child in model.named_children() if key not in LAST]
    images, stride = torch.zeros(1, 3, *SAMPLE), 1
    while layers:
        layer = layers.pop(0)
        try:
            with torch.inference_mode():
                made = layer(images)
            now = _stride(made)
        except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError):
            now = 0
        if not now:
            raise WrongUse(
                f"torchvision/{name} has no feature maps that a segmenter could be built on: choose another "
                "--backbone, such as mobilenet_v2 or resnet50."
            )
        if isinstance(layer, nn.Sequential) and now > 2 * stride:
            layers = [*layer.children(), *layers]
            continue
        images, stride = made, now
        yield _Stage(layer, now, made.shape[1])


def _stride(made: object) -> int:
    """Return how many pixels a place of a feature map stands for, 0 where it is none."""
    if not isinstance(made, Tensor) or made.ndim != 4:
        return 0
    down, across = (math.ceil(side / max(of, 1)) for side, of in zip(SAMPLE, made.shape[2:], strict=True))
    return down if down == across else 0


def _dilate(stages: list[_Stage]) -> None:
    """Let layers beyond ``DEEP`` look at places further apart in place of halving the map, as DeepLab does."""
    before, rate = 1, 1
    for stage in stages:
        convolutions = [module for module in stage.layer.modules() if isinstance(module, nn.Conv2d)]
        halves = stage.stride > max(before, DEEP) and any(module.stride != (1, 1) for module in convolutions)
        for module in convolutions:
            strided = halves and module.stride != (1, 1)
            own = rate if strided or not halves else 2 * rate
            if strided:
                module.stride = (1, 1)
            if own > 1 and max(module.kernel_size) > 1:
                module.dilation = (own, own)
                module.padding = tuple(own * (side - 1) // 2 for side in module.kernel_size)
        rate = 2 * rate if halves else rate
        before = stage.stride
