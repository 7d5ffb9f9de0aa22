"""Queries of DETR and its kin: logits and boxes as shares of the input."""

from __future__ import annotations

from typing import Literal

import torch

from cvjobs.networks.detection.nms import Candidates
from cvjobs.networks.onnx.heads.proposals import (
    Outputs,
    Size,
    Style,
    check,
    corners,
    finite,
    named,
    without_nonfinite,
)

KIND = "detr"


def candidates(
    outputs: Outputs,
    size: Size,
    conf: float,
    *,
    activation: Literal["softmax", "sigmoid"],
    style: Style = "cxcywh",
    relative: bool = True,
) -> Candidates:
    """Return the candidates of a batch, of which an image has at most as many as queries; none need NMS.

    Args:
        outputs: ``logits`` (B, N, C) and ``pred_boxes`` (B, N, 4).
        size: the input's (height, width) in pixels.
        conf: what they score more than.
        activation: ``softmax`` where the last class is none and each query has one (DETR, YOLOS), ``sigmoid`` where a
            query may be of several classes (RT-DETR, D-FINE, RF-DETR): the N best pairs of an image are taken.
        style: what the four numbers of a box are.
        relative: whether they are shares of the input's sides.

    Raises:
        WrongUse: the outputs have other shapes.
    """
    (name, logits), (box_name, boxes), *_ = named(outputs, KIND, "logits (B, N, C)", "boxes (B, N, 4)")
    check(name, logits, KIND, "logits (B, N, C)", logits.dim() == 3)
    right = boxes.shape == (*logits.shape[:2], 4)
    check(box_name, boxes, KIND, f"boxes ({logits.shape[0]}, {logits.shape[1]}, 4)", right)
    if activation == "softmax":
        scores, labels = logits.softmax(-1)[..., :-1].max(-1)
        queries = torch.arange(logits.shape[1], device=logits.device).expand_as(labels)
    else:
        scores, pairs = logits.sigmoid().flatten(1).topk(logits.shape[1])
        queries, labels = pairs // logits.shape[2], pairs % logits.shape[2]
    image, row = torch.where(scores > conf)
    query = queries[image, row]
    chosen = corners(boxes[image, query], style, size, relative=relative)
    found = Candidates(image, chosen, scores[image, row], labels[image, row], finite(logits, boxes), query=query)
    return without_nonfinite(found)
