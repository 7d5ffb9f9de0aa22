"""The mask head of a Mask R-CNN, put beside the heads of a Faster R-CNN on a feature pyramid."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

WIDTH = 256  # channels of each of four layers, and of the one that doubles their size, as torchvision has it
CELLS = 14  # along a side of what the head takes of a box; it answers twice as many


def added(detector: Any, classes: int) -> nn.Module:
    """Return a Faster R-CNN for so many classes with the mask head of torchvision's Mask R-CNN, of random weights."""
    heads = detector.roi_heads
    heads.mask_roi_pool = MultiScaleRoIAlign(heads.box_roi_pool.featmap_names, output_size=CELLS, sampling_ratio=2)
    heads.mask_head = MaskRCNNHeads(detector.backbone.out_channels, (WIDTH,) * 4, 1)
    heads.mask_predictor = MaskRCNNPredictor(WIDTH, WIDTH, classes + 1)
    made: nn.Module = detector.eval()
    return made
