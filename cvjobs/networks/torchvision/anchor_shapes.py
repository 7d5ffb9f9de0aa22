"""The anchors of torchvision's detectors: those of their own, and others in their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

from cvjobs.common.errors import WrongUse
from cvjobs.networks.detection.detector_anchors import DetectorAnchors

# The convolutions whose channels are a multiple of the anchors of a place.
_HEADS = ("rpn.head.cls_logits.", "rpn.head.bbox_pred.", "head.classification_head.cls_logits.",
          "head.regression_head.bbox_reg.")  # fmt: skip


def own(detector: nn.Module, name: str) -> DetectorAnchors:
    """Return the anchors that a detector has; its tensors may be without numbers.

    Raises:
        WrongUse: it has none.
    """
    if isinstance(detector, FCOS):
        raise WrongUse(f"{name} has no anchors: leave out --anchors, or choose a Faster R-CNN, RetinaNet or SSD.")
    generator = _generator(detector)
    if isinstance(detector, SSD):
        ratios = tuple(tuple(map(float, level)) for level in generator.aspect_ratios)
        return DetectorAnchors(aspect_ratios=ratios, scales=tuple(map(float, generator.scales)))
    return DetectorAnchors(
        sizes=tuple(tuple(map(float, level)) for level in generator.sizes),
        aspect_ratios=tuple(tuple(map(float, level)) for level in generator.aspect_ratios),
    )


def of_file(file: Path | None) -> DetectorAnchors | None:
    """Return the anchors that the model of a training run says in its file that it was given; None of other files."""
    try:
        with safe_open(file, "pt") as held:
            return DetectorAnchors.of(json.loads((held.metadata() or {})["cvjobs"]).get("anchors"))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        return None


def give(detector: nn.Module, anchors: DetectorAnchors) -> None:
    """Give a detector other anchors, as many at each place as its head is made for."""
    before = _generator(detector)
    made: Any
    if isinstance(detector, SSD):
        ratios: Any = [list(level) for level in anchors.aspect_ratios]
        scales = list(anchors.scales)
        made = DefaultBoxGenerator(ratios, scales=scales, steps=before.steps, clip=before.clip)
    else:
        made = AnchorGenerator(anchors.sizes, anchors.aspect_ratios)
    if made.num_anchors_per_location() != before.num_anchors_per_location():
        raise WrongUse("The anchors are not as many as the head of the detector is made for.")
    if isinstance(detector, FasterRCNN):
        detector.rpn.anchor_generator = made
    else:
        detector.anchor_generator = made


def fitting(tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors of a file without those of the anchors' heads that are for another number of anchors."""
    return {
        key: tensor
        for key, tensor in tensors.items()
        if not key.startswith(_HEADS) or key not in expected or tensor.shape == expected[key].shape
    }


def _generator(detector: nn.Module) -> Any:
    if isinstance(detector, FasterRCNN):
        return detector.rpn.anchor_generator
    assert isinstance(detector, (RetinaNet, SSD))
    return detector.anchor_generator
