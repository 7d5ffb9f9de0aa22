"""The feature maps of a classifier of timm, as timm's own extractor of features gives them, with its weights."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from cvjobs.common.errors import WrongUse
from cvjobs.networks import weights as files

STRIDE = 16  # pixels that a place of the last map stands for, of a model that can dilate
SAMPLE = (128, 192)  # height and width of the image by which maps are told from other outputs


def maps(classifier: nn.Module, name: str) -> nn.Module:
    """Return a network that gives a list of maps (B, C, h, w), the shallow ones first, with the classifier's weights.

    Where timm can, layers beyond ``STRIDE`` look at places further apart in place of halving the map.

    Raises:
        WrongUse: the model has no such maps for images of any size, as transformers have not.
    """
    own = {key.replace(".", "_"): tensor for key, tensor in classifier.state_dict().items()}
    ways: tuple[dict[str, Any], ...] = ({"output_stride": STRIDE}, {})
    for options in ways:
        try:
            with files.seeded():
                found: nn.Module = timm.create_model(name, features_only=True, **options).eval()
            found.load_state_dict({key: own[key.replace(".", "_")] for key in found.state_dict()})
            with torch.inference_mode():
                outputs = found(torch.zeros(1, 3, *SAMPLE))
        except (AssertionError, AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
            continue
        if outputs and all(map(_is_map, outputs)):
            return found
    raise WrongUse(
        f"timm/{name} has no feature maps that a segmenter could be built on: choose another --backbone, such as "
        "mobilenet_v2 or timm/resnet18."
    )


def _is_map(output: Tensor) -> bool:
    """Return whether an output of ``SAMPLE`` is a map with the channels first."""
    return output.ndim == 4 and 3 * output.shape[2] == 2 * output.shape[3]
