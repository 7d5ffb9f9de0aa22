"""YuNet: faces with five points, one for each cell of its grids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cvjobs.networks.detection.nms import Candidates
from cvjobs.networks.onnx.heads.proposals import (
    Outputs,
    Size,
    check,
    corners,
    finite,
    grid,
    named,
    points,
    proposed,
)

KIND = "yunet"
LANDMARKS = ("right eye", "left eye", "nose", "right corner of the mouth", "left corner of the mouth")
PARTS = ("cls", "obj", "bbox", "kps")


def candidates(outputs: Outputs, size: Size, conf: float, *, strides: Sequence[int] = (8, 16, 32)) -> Candidates:
    """Return the candidates of a batch, all of class 0; left and right in ``LANDMARKS`` are the person's own.

    Args:
        outputs: for each of ``strides`` ``cls`` (B, N, 1), then of each ``obj`` (B, N, 1), ``bbox`` (B, N, 4) and
            ``kps`` (B, N, 10), in the order of the file: cls_8, cls_16, cls_32, obj_8, …
        size: the input's (height, width) in pixels, multiples of the strides.
        conf: what they score more than: the root of cls × obj, each cut to 0..1.
        strides: of the grids.

    Raises:
        WrongUse: the outputs have other shapes.
    """
    wanted = [f"{part}_{stride}" for part in PARTS for stride in strides]
    found = named(outputs, KIND, *wanted)
    parts: list[Tensor] = []
    for begin, width in zip(range(0, len(wanted), len(strides)), (1, 1, 4, 10), strict=True):
        for (name, said), stride in zip(found[begin:], strides, strict=False):
            count = len(grid(size, [stride], said.device)[0])
            right = said.dim() == 3 and said.shape[1:] == (count, width)
            check(name, said, KIND, f"(B, {count}, {width}) for an input of {size[0]} × {size[1]}", right)
        parts.append(torch.cat([said for _, said in found[begin : begin + len(strides)]], 1))
    classes, objects, offsets, moved = parts
    cells, steps = grid(size, strides, classes.device)
    boxes = torch.cat([(cells + offsets[..., :2]) * steps, offsets[..., 2:].exp() * steps], -1)
    spots = (cells[:, None] + points(moved)) * steps[:, None]
    scores = (classes.clamp(0, 1) * objects.clamp(0, 1)).sqrt()
    return proposed(corners(boxes, "cxcywh", size), scores, conf, finite(*parts), landmarks=spots)
