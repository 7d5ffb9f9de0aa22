"""YOLOX as it is exported: boxes still in cells of its grids."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cvjobs.networks.detection.nms import Candidates
from cvjobs.networks.onnx.heads.proposals import (
    Outputs,
    Size,
    check,
    corners,
    finite,
    grid,
    in_words,
    named,
    proposed,
)

KIND = "yolox"


def candidates(outputs: Outputs, size: Size, conf: float, *, strides: Sequence[int] = (8, 16, 32)) -> Candidates:
    """Return the candidates of a batch: the best class of each cell. Decoded YOLOX is one of ``yolo_boxes``.

    Args:
        outputs: ``cells`` (B, N, 5 + C): the centre from its cell in strides, the logarithm of the size in strides,
            that it is an object, the classes.
        size: the input's (height, width) in pixels.
        conf: what they score more than: the product of both.
        strides: of the grids, in the order of the cells.

    Raises:
        WrongUse: the output has another shape.
    """
    (name, said), *_ = named(outputs, KIND, "cells (B, N, 5 + classes)")
    cells, steps = grid(size, strides, said.device)
    check(name, said, KIND, "(B, N, 5 + classes)", said.dim() == 3 and said.shape[2] > 5)
    check(name, said, KIND, in_words(size, strides, len(cells)), said.shape[1] == len(cells))
    boxes = torch.cat([(said[..., :2] + cells) * steps, said[..., 2:4].exp() * steps], -1)
    return proposed(corners(boxes, "cxcywh", size), said[..., 5:] * said[..., 4:5], conf, finite(said))
