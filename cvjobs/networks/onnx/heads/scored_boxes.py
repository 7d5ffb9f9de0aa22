"""Boxes with the scores of all classes, or with a score and a label each."""

from __future__ import annotations

from cvjobs.networks.detection.nms import Candidates
from cvjobs.networks.onnx.heads.proposals import (
    Activation,
    Background,
    Outputs,
    Size,
    Style,
    check,
    corners,
    finite,
    named,
    points,
    probabilities,
    proposed,
)

KIND = "boxes"


def candidates(
    outputs: Outputs,
    size: Size,
    conf: float,
    *,
    style: Style = "xyxy",
    relative: bool = False,
    activation: Activation = "none",
    background: Background = "",
    every: bool = False,
    landmarks: bool = False,
) -> Candidates:
    """Return the candidates of a batch; labels are counted without the background.

    Args:
        outputs: ``boxes`` (B, N, 4) or (B, N, 1, 4); ``scores`` (B, N) and ``labels`` (B, N), or ``scores`` (B, N, C);
            at last, with ``landmarks``, points (B, N, 2 K) or (B, N, K, 2) in what the boxes are in.
        size: the input's (height, width) in pixels.
        conf: what they score more than.
        style: what the four numbers of a box are.
        relative: whether they are shares of the input's sides.
        activation: what is still to be done to the scores.
        background: which of the C classes is none.
        every: take each class of a box that scores enough, not the best alone.
        landmarks: whether the last output is that of points.

    Raises:
        WrongUse: the outputs have other shapes.
    """
    wanted = ["boxes (B, N, 4)", "scores (B, N) or (B, N, C)", *["landmarks (B, N, 2 K)"] * landmarks]
    found = named(outputs, KIND, *wanted)
    last = found.pop() if landmarks else None
    (name, boxes), (score_name, scores), *rest = found
    if boxes.dim() == 4 and boxes.shape[2] == 1:
        boxes = boxes[:, :, 0]
    check(name, boxes, KIND, "boxes (B, N, 4)", boxes.dim() == 3 and boxes.shape[2] == 4)
    labels = None
    if rest:
        label_name, labels = rest[0]
        check(label_name, labels, KIND, f"labels {tuple(boxes.shape[:2])}", labels.shape == boxes.shape[:2])
        if scores.dim() == 3 and scores.shape[2] == 1:
            scores = scores[:, :, 0]
        check(score_name, scores, KIND, f"scores {tuple(boxes.shape[:2])}", scores.shape == boxes.shape[:2])
        if activation != "none":
            scores = probabilities(scores, "sigmoid")
    else:
        if scores.dim() == 2:
            scores = scores[:, :, None]
        right = scores.dim() == 3 and scores.shape[:2] == boxes.shape[:2]
        check(score_name, scores, KIND, f"scores ({boxes.shape[0]}, {boxes.shape[1]}, C)", right)
    fine = finite(boxes, scores)
    spots = None
    if last:
        name, flat = last
        right = flat.dim() in (3, 4) and flat.shape[:2] == boxes.shape[:2] and not flat[0, 0].numel() % 2
        check(name, flat, KIND, f"landmarks ({boxes.shape[0]}, {boxes.shape[1]}, 2 K)", right)
        spots = points(flat.flatten(2))
        fine = fine & finite(spots)
        if relative:
            spots = spots * spots.new_tensor([size[1], size[0]])
    if labels is None:
        scores = probabilities(scores, activation, background)
    placed = corners(boxes, style, size, relative=relative)
    return proposed(placed, scores, conf, fine, labels=labels, landmarks=spots, every=every)
