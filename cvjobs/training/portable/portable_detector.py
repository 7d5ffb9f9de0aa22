"""A torchvision detector as one module for exporters: of fixed shapes wherever its own depend on what it sees.

Where torchvision takes what scores enough, here the best are taken, always as many, and rows that hold nothing have the
score 0. What comes out is the same: of two boxes that overlap the better is kept, so what scores little changes nothing
above it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.models.detection.ssd import SSD
from torchvision.ops import nms

from cvjobs.networks.detection.framing import STRIDE
from cvjobs.networks.torchvision.architectures import SMALLEST, TwoStages

MOST = 4096  # boxes of an image that NMS looks at, the best ones
Features = Mapping[str, Tensor]
Found = tuple[Tensor, Tensor, Tensor]  # boxes (N, 4), scores (N,) and classes (N,), which are 0 where there is no box


class PortableDetector(nn.Module):
    """From one picture, normalised float32 (1, 3, height, width), to its ``max_det`` best boxes, the best first.

    It pads the picture by itself. NMS is within a class, at the IoU of the detector; no score is too low.
    """

    def __init__(self, detector: nn.Module, side: int) -> None:
        """``side`` is the longer one of its pictures in pixels, by which an SSD's canvas is known."""
        super().__init__()
        self.detector: Any = detector
        heads: Any = getattr(detector, "roi_heads", detector)
        self.iou, self.max_det = float(heads.nms_thresh), int(heads.detections_per_img)
        self.square = isinstance(detector, SSD)  # whose canvas is always the same
        self._side = side
        if isinstance(detector, FasterRCNN):
            TwoStages(detector)  # whose pools learn their strides

    def forward(self, images: Tensor) -> Found:
        """Return boxes (N, 4) in pixels of the picture, classes (N,) from 1, and scores (N,)."""
        height, width = images.shape[2], images.shape[3]
        if self.square:
            below, right = self._side - height, self._side - width
        else:
            below, right = -height % STRIDE, -width % STRIDE
        canvas = F.pad(images, (0, right, 0, below))
        features = self.detector.backbone(canvas)
        if isinstance(self.detector, FasterRCNN):
            found = self._of_proposals(canvas, features, height, width)
        else:
            outputs = self.detector.head(list(features.values()))
            anchors = _anchors(self.detector.anchor_generator, canvas, features)
            best = self._of_each_class if isinstance(self.detector, SSD) else self._of_each_level
            boxes, scores, classes = best(outputs, features, anchors)
            found = _clipped(boxes, height, width), scores, classes
        return self._kept(found, height, width)

    def _of_each_level(self, outputs: Mapping[str, Tensor], features: Features, anchors: Tensor) -> Found:
        model = self.detector
        scores, deltas = outputs["cls_logits"][0].sigmoid(), outputs["bbox_regression"][0]
        if isinstance(model, FCOS):
            scores = (scores * outputs["bbox_ctrness"][0].sigmoid()).sqrt()
        each = model.anchor_generator.num_anchors_per_location()[0]
        count, start, found = scores.shape[1], 0, []
        for level in features.values():
            places = each * level.shape[2] * level.shape[3]
            rows = slice(start, start + places)
            value, index = _best(scores[rows].flatten(), model.topk_candidates)
            anchor = index // count
            decode = model.box_coder.decode if isinstance(model, FCOS) else model.box_coder.decode_single
            boxes = decode(deltas[rows][anchor], anchors[rows][anchor])
            found.append((boxes, value.clamp(min=0), index % count))
            start = start + places
        boxes, values, classes = (torch.cat(parts) for parts in zip(*found, strict=True))
        return boxes, values, classes

    def _of_each_class(self, outputs: Mapping[str, Tensor], features: Features, anchors: Tensor) -> Found:
        del features
        model = self.detector
        scores = outputs["cls_logits"][0].softmax(-1)[:, 1:]
        boxes = model.box_coder.decode_single(outputs["bbox_regression"][0], anchors)
        most = min(model.topk_candidates, len(scores))
        value, anchor = scores.T.topk(most, 1)
        classes = torch.arange(1, scores.shape[1] + 1)[:, None].expand(-1, most)
        return boxes[anchor.flatten()], value.flatten(), classes.flatten()

    def _of_proposals(self, canvas: Tensor, features: Features, height: Any, width: Any) -> Found:
        heads = self.detector.roi_heads
        proposals, real = self._proposals(canvas, features, height, width)
        pooled = heads.box_roi_pool(dict(features), [proposals], [(height, width)])
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        count = logits.shape[1] - 1
        scores = (logits.softmax(-1) * real[:, None])[:, 1:].flatten()
        value, index = scores.topk(min(MOST, len(scores)))
        row, label = index // count, index % count + 1
        moved = deltas.view(len(logits), -1, 4)[row, label]
        boxes = _clipped(heads.box_coder.decode_single(moved, proposals[row]), height, width)
        return *_large(boxes, value, SMALLEST), label

    def _proposals(self, canvas: Tensor, features: Features, height: Any, width: Any) -> tuple[Tensor, Tensor]:
        """Return the regions (N, 4) to look at, and (N,) 1 where there is one and 0 where there is none."""
        rpn = self.detector.rpn
        objectness, deltas = rpn.head(list(features.values()))
        anchors = _anchors(rpn.anchor_generator, canvas, features)
        places = [level.shape[1] * level.shape[2] * level.shape[3] for level in objectness]
        objectness, deltas = concat_box_prediction_layers(objectness, deltas)
        scores, start, found = objectness.flatten(), 0, []
        for number, many in enumerate(places):
            rows = slice(start, start + many)
            value, index = _best(scores[rows], rpn._pre_nms_top_n["testing"])
            boxes = _clipped(rpn.box_coder.decode_single(deltas[rows][index], anchors[rows][index]), height, width)
            value = value.sigmoid()
            boxes, value = _large(boxes, value * (value >= rpn.score_thresh), rpn.min_size)
            found.append((boxes, value, torch.full_like(index, number)))
            start = start + many
        boxes, values, levels = (torch.cat(parts) for parts in zip(*found, strict=True))
        most = rpn._post_nms_top_n["testing"]
        boxes, values, _ = _suppressed((boxes, values, levels), rpn.nms_thresh, most, height, width)
        return boxes, (values > 0).float()

    def _kept(self, found: Found, height: Any, width: Any) -> Found:
        boxes, scores, classes = found
        if isinstance(self.detector, SSD) and len(scores) > MOST:
            scores, rows = scores.topk(MOST)
            boxes, classes = boxes[rows], classes[rows]
        boxes, scores, classes = _suppressed((boxes, scores, classes), self.iou, self.max_det, height, width)
        return boxes, classes, scores


def _anchors(generator: nn.Module, canvas: Tensor, features: Features) -> Tensor:
    anchors: Tensor = generator(ImageList(canvas, [(0, 0)]), list(features.values()))[0]
    return anchors


def _best(scores: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the ``most`` best of scores (N,) with their places; where there are fewer, -inf with the first place."""
    value, index = torch.cat([scores, scores.new_full((most,), -math.inf)]).topk(most)
    return value, torch.where(value > -math.inf, index, 0)


def _clipped(boxes: Tensor, height: Any, width: Any) -> Tensor:
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([x0.clamp(0, width), y0.clamp(0, height), x1.clamp(0, width), y1.clamp(0, height)], -1)


def _large(boxes: Tensor, scores: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Return boxes and scores, both 0 where a side of a box is shorter than ``least`` pixels."""
    there = ((boxes[:, 2:] - boxes[:, :2]) >= least).all(1)
    return boxes * there[:, None], scores * there


def _suppressed(found: Found, iou: float, most: int, height: Any, width: Any) -> Found:
    """Return the ``most`` best of boxes that NMS within each class leaves, filled up with zeros.

    Each class has a place of its own for it, in a grid: the further away, the less exact would float32 be.
    """
    # Two rows that hold nothing, which NMS always leaves: exporters take it that at least two are left.
    boxes, scores, groups = (torch.cat([part, part.new_zeros((2, *part.shape[1:]))]) for part in found)
    across = groups % 16
    moved = torch.stack([across * (width + 1), groups // 16 * (height + 1)], 1).float().repeat(1, 2)
    rows = torch.cat([nms(boxes + moved, scores, iou), torch.full((most,), len(boxes) - 1)])[torch.arange(most)]
    return boxes[rows], scores[rows], groups[rows]
