"""Anchor-free heads of distances to the four sides, one or two boxes a cell: SCRFD and its like."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cvjobs.networks.detection.nms import Candidates
from cvjobs.networks.onnx.heads.proposals import Outputs, Size, check, finite, grid, named, points, proposed

KIND = "distances"


def candidates(
    outputs: Outputs,
    size: Size,
    conf: float,
    *,
    strides: Sequence[int] = (8, 16, 32),
    each: int = 2,
    landmarks: bool = True,
) -> Candidates:
    """Return the candidates of a batch: the best class of each.

    Args:
        outputs: for each of ``strides`` ``scores`` (B, N, C) or (N, C), then of each ``distances`` (…, 4) from the
            cell's corner to left, top, right and bottom in strides, and with ``landmarks`` points (…, 2 K) from there.
        size: the input's (height, width) in pixels.
        conf: what they score more than.
        strides: of the grids.
        each: boxes of a cell, one after the other.
        landmarks: whether there are points.

    Raises:
        WrongUse: the outputs have other shapes.
    """
    kinds = ("scores", "distances", "landmarks")[: 2 + landmarks]
    found = named(outputs, KIND, *(f"{part}_{stride}" for part in kinds for stride in strides))
    parts: list[Tensor] = []
    for number, part in enumerate(kinds):
        level: list[Tensor] = []
        for (name, said), stride in zip(found[number * len(strides) :], strides, strict=False):
            one = said[None] if said.dim() == 2 else said
            count = each * len(grid(size, [stride], said.device)[0])
            right = one.dim() == 3 and one.shape[1] == count
            right = right and (one.shape[2] == 4 if part == "distances" else part == "scores" or not one.shape[2] % 2)
            columns = {"scores": "C", "distances": "4", "landmarks": "2 K"}[part]
            check(name, said, KIND, f"(B, {count}, {columns}) for an input of {size[0]} × {size[1]}", right)
            level.append(one)
        parts.append(torch.cat(level, 1))
    cells, steps = grid(size, strides, parts[0].device, each)
    centre, away = cells * steps, parts[1] * steps
    boxes = torch.cat([centre - away[..., :2], centre + away[..., 2:]], -1)
    spots = centre[:, None] + points(parts[2]) * steps[:, None] if landmarks else None
    return proposed(boxes, parts[0], conf, finite(*parts), landmarks=spots)
