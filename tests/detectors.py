"""Torchvision's detectors, what they find themselves, and when ours find the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import calibrated
import numpy as np
import torch
from torch import Tensor

from cvjobs.networks.detection.detector_network import PictureDetections

SMALL = "fasterrcnn_mobilenet_v3_large_320_fpn"
FIXED = "ssdlite320_mobilenet_v3_large"
KINDS = [SMALL, "retinanet_resnet50_fpn", "fcos_resnet50_fpn", FIXED]
OTHERS = [
    "ssd300_vgg16",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "retinanet_resnet50_fpn_v2",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
]
SIDE = 128  # the shorter side in pixels to which the quick tests resize


def own(name: str, file: Path, images: list[Any], size: int | None = SIDE) -> list[dict[str, Tensor]]:
    """What torchvision's model returns for each image alone."""
    options = {}
    if size and not name.startswith("ssd"):
        proportion = 2 if name == SMALL else 1333 / 800
        options = {"min_size": size, "max_size": round(size * proportion)}
    model = calibrated.reference(name, file, **options)
    with torch.no_grad():
        return [model([torch.from_numpy(image).permute(2, 0, 1) / 255])[0] for image in images]


def same(found: PictureDetections | None, expected: dict[str, Tensor], ties: float = 0.0, clear: float = 0.9) -> None:
    """Every box has its counterpart: of its class, within half a pixel, its score within a thousandth.

    ``ties`` is the share of boxes that may have none: of two that overlap and score the same, as many do where scores
    are rounded to 1, the last bit decides which one stays, and that differs between sizes of a batch. More than
    the share ``clear`` of them is compared.
    """
    assert found is not None
    boxes, scores, labels = (expected[name].numpy() for name in ("boxes", "scores", "labels"))
    assert len(boxes) == len(found.boxes)
    assert (np.diff(found.scores) <= 0).all()
    apart = np.abs(boxes[:, None] - found.boxes[None]).max(-1)
    apart += 1e3 * (labels[:, None] != found.classes[None])
    apart += 1e3 * (np.abs(scores[:, None] - found.scores[None]) > 1e-3)
    # Where the hundred best are kept, rounding decides between the hundredth and those that score the same.
    assert (apart.min(1)[scores > scores.min() + 1e-3] > 0.5).sum() <= ties * len(boxes)
    assert (apart.min(0)[found.scores > found.scores.min() + 1e-3] > 0.5).sum() <= ties * len(boxes)
    assert (scores > scores.min() + 1e-3).mean() > clear
