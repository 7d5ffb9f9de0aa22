"""A feature pyramid on any classifier that torch can trace: the last maps of each size, brought to one width."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, FeaturePyramidNetwork, LastLevelMaxPool

from cvjobs.common.errors import WrongUse

STRIDES = (8, 16, 32)
WIDTH = 256  # channels of a level
_SIDE = 128  # of the image by which the maps are found, in pixels


class PyramidBackbone(nn.Module):
    """Maps of a classifier at ``STRIDES``, and what ``extra`` adds to them, as torchvision's detectors take them."""

    def __init__(self, classifier: nn.Module, name: str, extra: ExtraFPNBlock | None = None) -> None:
        """Take what is needed of a classifier; raises WrongUse where it has no such maps, or cannot be traced."""
        super().__init__()
        found = _maps(classifier, name)
        nodes = {found[stride][0]: str(level) for level, stride in enumerate(STRIDES)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of nodes that training and evaluation do not share
            self.body = create_feature_extractor(classifier, nodes)
        self.fpn = FeaturePyramidNetwork(
            [found[stride][1] for stride in STRIDES], WIDTH, extra_blocks=extra or LastLevelMaxPool()
        )
        self.out_channels = WIDTH

    def __deepcopy__(self, memo: dict[int, Any]) -> PyramidBackbone:
        """Return a copy in the same mode: of torchvision's traced modules copies come in training mode."""
        made: PyramidBackbone = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__ = copy.deepcopy(self.__dict__, memo)
        made.train(self.training)
        for own, copied in zip(self.modules(), made.modules(), strict=True):
            copied.training = own.training
        return made

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the levels, each (N, 256, h, w)."""
        levels: dict[str, Tensor] = self.fpn(OrderedDict(self.body(images)))
        return levels


def _maps(classifier: nn.Module, name: str) -> dict[int, tuple[str, int]]:
    """Return the last node of each stride, and its channels."""
    classifier.eval()
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            training, evaluation = get_graph_node_names(classifier)
            both = [node for node in evaluation if node in set(training)]
            every = create_feature_extractor(classifier, both)
            outputs: dict[str, Any] = every.eval()(torch.zeros(1, 3, _SIDE, _SIDE))
    except Exception as error:
        raise WrongUse(f"{name} cannot be a --backbone, as torch cannot trace it: choose another.") from error
    found = {
        _SIDE // output.shape[2]: (node, output.shape[1])
        for node, output in outputs.items()
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3]
    }
    if missing := [stride for stride in STRIDES if stride not in found]:
        raise WrongUse(
            f"{name} cannot be a --backbone, as it has no maps of a {missing[0]}th of an image's side: choose another, "
            "such as mobilenet_v2 or resnet18."
        )
    return found
