"""What NMS inside of a model leaves: how many boxes, and these with scores and classes; EfficientNMS and its like."""

from __future__ import annotations

import torch

from cvjobs.networks.detection.nms import Candidates
from cvjobs.networks.onnx.heads.proposals import Outputs, Size, Style, check, corners, finite, named, proposed

KIND = "counted"


def candidates(
    outputs: Outputs, size: Size, conf: float, *, style: Style = "xyxy", relative: bool = False
) -> Candidates:
    """Return the candidates of a batch; what is behind the number of an image's boxes is empty.

    Args:
        outputs: ``num_dets`` (B,) or (B, 1), ``boxes`` (B, N, 4), ``scores`` (B, N), ``classes`` (B, N).
        size: the input's (height, width) in pixels.
        conf: what they score more than.
        style: what the four numbers of a box are; TensorFlow's are ``yxyx``.
        relative: whether they are shares of the input's sides.

    Raises:
        WrongUse: the outputs have other shapes.
    """
    wanted = ("num_dets (B, 1)", "boxes (B, N, 4)", "scores (B, N)", "classes (B, N)")
    found = named(outputs, KIND, *wanted)
    (name, counts), (box_name, boxes), (score_name, scores), (class_name, classes), *_ = found
    check(box_name, boxes, KIND, wanted[1], boxes.dim() == 3 and boxes.shape[2] == 4)
    shape = boxes.shape[:2]
    check(name, counts, KIND, f"numbers ({shape[0]}, 1)", counts.dim() in (1, 2) and counts.numel() == shape[0])
    check(score_name, scores, KIND, f"scores {tuple(shape)}", scores.shape == shape)
    check(class_name, classes, KIND, f"classes {tuple(shape)}", classes.shape == shape)
    empty = torch.arange(shape[1], device=boxes.device) >= counts.view(-1, 1)
    boxes = boxes.masked_fill(empty[..., None], 0)
    scores, classes = scores.masked_fill(empty, -1), classes.masked_fill(empty, 0)
    fine = finite(counts.view(-1, 1), boxes, scores, classes)
    found_scores = scores.masked_fill(empty, float("-inf"))
    return proposed(corners(boxes, style, size, relative=relative), found_scores, conf, fine, labels=classes)
