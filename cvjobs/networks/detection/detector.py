"""A detector that is not on a device yet: its weights, its classes, its rules and what identifies its results."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from cvjobs.common import categories as common_categories
from cvjobs.common.categories import Category
from cvjobs.images.transform import Transform
from cvjobs.networks import torch_network
from cvjobs.networks.detection.detector_network import DetectorNetwork, Masks
from cvjobs.networks.detection.framing import Framing, TorchvisionFraming
from cvjobs.networks.detection.nms import Architecture
from cvjobs.networks.detection.settings import Rules, Settings, chosen
from cvjobs.networks.weights import Weights

SAMPLE = (128, 160)  # the size in pixels by which folded batch norms are compared with the others


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A torch detector on the CPU: a module with a ``backbone``, and the architecture that makes boxes of it.

    ``rules`` are the model's own until ``ruled`` by a user. With ``masks`` it finds a mask for each box, in the cells
    of the box or of the image. ``folded`` names the part whose batch norms can be folded on a CPU, empty for none;
    ``merging`` is the IoU by which tiles and second looks saw the same object, of a model whose own boxes need no NMS
    (``rules.iou`` of 1). ``also`` are more facts; of a model that finds points of each object they hold the names of
    these, ``landmarks``, of which "left …" and "right …" change places where a picture is mirrored.
    """

    name: str
    weights: Weights
    transform: Transform
    categories: list[Category]
    rules: Rules
    module: nn.Module = field(repr=False)
    architecture: Callable[[nn.Module], Architecture]
    masks: Masks = ""
    framing: Framing = field(default_factory=TorchvisionFraming)
    folded: str = "backbone"
    merging: float | None = None
    also: Mapping[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What identifies its results: the weights, the classes and the rules."""
        task = common_categories.facts("instance" if self.masks else "detect", self.categories)
        facts = {"model": self.name, **self.weights.facts, **task, **self.rules.facts}
        return {**facts, **self.framing.facts, **self.also}

    @property
    def file(self) -> str:
        """Where the weights came from, empty where they are random."""
        return str(self.weights.file or "")

    def ruled(self, settings: Settings) -> Detector:
        """Return the detector as a user wants it; raises WrongUse for what it cannot do."""
        return replace(self, rules=chosen(settings, self.rules, self.categories, self.name))

    def load(self, device: str, precision: str) -> DetectorNetwork:
        """Return a copy of the model on a device, in ``fp32``, ``bf16`` or ``fp16``."""
        module = copy.deepcopy(self.module)
        if torch.device(device).type == "cpu" and self.folded:
            size = (self.rules.short, self.rules.long) if self.rules.fixed else SAMPLE
            part = torch_network.folded(self.module.get_submodule(self.folded), size)
            module.set_submodule(self.folded, part)
        placed = module.to(device, torch_network.TYPES[precision], memory_format=torch.channels_last)  # type: ignore[call-overload]
        classes = [category.id for category in self.categories]
        architecture = self.architecture(placed)
        merging = self.merging if self.rules.iou >= 1 else None
        return DetectorNetwork(
            architecture,
            self.transform,
            self.rules,
            classes,
            masks=self.masks,
            framing=self.framing,
            merging=merging,
            mirrored=mirrored(common_categories.landmarks(self.also)),
        )


def mirrored(names: Sequence[str]) -> list[int]:
    """Return for each point by its name which one it is in a mirrored picture: "left eye" is "right eye"."""
    other = {"left": "right", "right": "left"}
    found = [" ".join(other.get(word, word) for word in name.split(" ")) for name in names]
    return [names.index(name) if name in names else at for at, name in enumerate(found)]
