"""Heads that move and stretch prior boxes: SSD, and RetinaFace with its points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cvjobs.networks.detection.nms import Candidates
from cvjobs.networks.onnx.heads.proposals import (
    Activation,
    Background,
    Outputs,
    Size,
    check,
    corners,
    finite,
    grid,
    named,
    points,
    probabilities,
    proposed,
)

KIND = "priors"


def face_priors(size: Size, strides: Sequence[int], sides: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Return RetinaFace's priors (N, 4) as cx, cy, w, h in shares of the input: squares in the middle of each cell.

    Args:
        size: the input's (height, width) in pixels.
        strides: of the grids.
        sides: of the squares in a grid's cell, in pixels, for each stride.
        device: where they are to be.
    """
    priors = []
    for stride, lengths in zip(strides, sides, strict=True):
        cells, step = grid(size, [stride], device, len(lengths))
        squares = torch.tensor(lengths, device=device).float().repeat(len(cells) // len(lengths))
        priors.append(torch.cat([(cells + 0.5) * step, squares[:, None].expand(-1, 2)], 1))
    return torch.cat(priors) / torch.tensor([size[1], size[0], size[1], size[0]], device=device)


def candidates(
    outputs: Outputs,
    size: Size,
    conf: float,
    *,
    priors: Tensor | None = None,
    relative: bool = True,
    variances: tuple[float, float] = (0.1, 0.2),
    activation: Activation = "softmax",
    background: Background = "first",
    landmarks: bool = False,
    every: bool = True,
) -> Candidates:
    """Return the candidates of a batch; labels are counted without the background.

    A box's centre is the prior's plus its sides times the first variance times the offset; its sides are the prior's
    times e to the power of the second variance times the offset; a point is found as a centre.

    Args:
        outputs: ``offsets`` (B, N, 4), ``scores`` (B, N, C), with ``landmarks`` offsets of points (B, N, 2 K), and
            where no ``priors`` are given, priors (N, 4) or (1, N, 4).
        size: the input's (height, width) in pixels.
        conf: what they score more than.
        priors: (N, 4) cx, cy, w, h.
        relative: whether priors are in shares of the input's sides.
        variances: of centres and of sides.
        activation: what is still to be done to the scores.
        background: which of the C classes is none.
        landmarks: whether there are points.
        every: take each class of a box that scores enough, not the best alone.

    Raises:
        WrongUse: the outputs have other shapes.
    """
    wanted = ["offsets (B, N, 4)", "scores (B, N, C)", *["landmarks (B, N, 2 K)"] * landmarks]
    found = named(outputs, KIND, *wanted, *["priors (N, 4)"] * (priors is None))
    (name, offsets), (score_name, scores) = found[:2]
    check(name, offsets, KIND, wanted[0], offsets.dim() == 3 and offsets.shape[2] == 4)
    shape = offsets.shape[:2]
    right = scores.dim() == 3 and scores.shape[:2] == shape
    check(score_name, scores, KIND, f"scores ({shape[0]}, {shape[1]}, C)", right)
    at, known = (name, priors) if priors is not None else found[2 + landmarks]
    right = known.shape[-2:] == (shape[1], 4) and known.numel() == 4 * shape[1]
    check(at, offsets if priors is not None else known, KIND, f"{known.numel() // 4} priors of 4 numbers", right)
    known = known.to(offsets.device, torch.float32)
    known = known.reshape(-1, 4)
    if relative:
        known = known * known.new_tensor([size[1], size[0], size[1], size[0]])
    centre, sides = torch.split(known, 2, 1)
    middle = centre + offsets[..., :2] * variances[0] * sides
    boxes = torch.cat([middle, sides * (offsets[..., 2:] * variances[1]).exp()], -1)
    fine, spots = finite(offsets, scores), None
    if landmarks:
        name, moved = found[2]
        right = moved.dim() == 3 and moved.shape[:2] == shape and not moved.shape[2] % 2
        check(name, moved, KIND, f"landmarks ({shape[0]}, {shape[1]}, 2 K)", right)
        spots = centre[:, None] + points(moved) * variances[0] * sides[:, None]
        fine = fine & finite(moved)
    likely = probabilities(scores, activation, background)
    return proposed(corners(boxes, "cxcywh", size), likely, conf, fine, landmarks=spots, every=every)
