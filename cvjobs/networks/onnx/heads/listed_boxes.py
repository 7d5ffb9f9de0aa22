"""Boxes, scores and labels of each image by themselves, as torchvision's detectors are exported."""

from __future__ import annotations

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

KIND = "lists"


def candidates(
    outputs: Outputs, size: Size, conf: float, *, style: Style = "xyxy", relative: bool = False
) -> Candidates:
    """Return the candidates of a batch; ``query`` is the place in an image's list.

    Args:
        outputs: of each image in turn ``boxes`` (N, 4), ``scores`` (N,) and ``labels`` (N,).
        size: the input's (height, width) in pixels.
        conf: what they score more than.
        style: what the four numbers of a box are.
        relative: whether they are shares of the input's sides.

    Raises:
        WrongUse: the outputs have other shapes.
    """
    found = named(outputs, KIND, "boxes (N, 4)", "scores (N,)", "labels (N,)")
    last, tensor = found[-1]
    check(last, tensor, KIND, "boxes, scores and labels of each image", not len(found) % 3)
    parts = []
    for image in range(len(found) // 3):
        (name, boxes), (score_name, scores), (label_name, labels) = found[3 * image : 3 * image + 3]
        check(name, boxes, KIND, "boxes (N, 4)", boxes.dim() == 2 and boxes.shape[1] == 4)
        check(score_name, scores, KIND, f"scores ({len(boxes)},)", scores.shape == boxes.shape[:1])
        check(label_name, labels, KIND, f"labels ({len(boxes)},)", labels.shape == boxes.shape[:1])
        fine = finite(boxes[None], scores[None])
        rows = torch.where(scores > conf)[0]
        parts.append(
            Candidates(
                torch.full_like(rows, image),
                corners(boxes[rows], style, size, relative=relative),
                scores[rows],
                labels[rows].long(),
                fine,
                query=rows,
            )
        )
    return without_nonfinite(
        Candidates(
            torch.cat([part.image for part in parts]),
            torch.cat([part.boxes for part in parts]),
            torch.cat([part.scores for part in parts]),
            torch.cat([part.labels for part in parts]),
            torch.cat([part.finite for part in parts]),
            query=torch.cat([part.query for part in parts if part.query is not None]),
        )
    )
