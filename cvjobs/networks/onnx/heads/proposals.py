"""From the boxes and scores of a batch to its candidates: activations, corners, grids, and the check of shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from cvjobs.common.errors import WrongUse
from cvjobs.networks.detection.nms import Candidates

Outputs = Mapping[str, Tensor]  # in the order that a head asks for, by their names in the file
Size = tuple[int, int]  # (height, width) in pixels
Style = Literal["xyxy", "yxyx", "xywh", "cxcywh"]  # two corners, or one with the size, or the centre with the size
Activation = Literal["none", "sigmoid", "softmax"]  # what a head still does to its scores
Background = Literal["", "first", "last"]  # which class is none


def named(outputs: Outputs, kind: str, *wanted: str) -> list[tuple[str, Tensor]]:
    """Return the outputs by name, floats as float32.

    Raises:
        WrongUse: there are fewer than are ``wanted``, of which each says what it is and its shape.
    """
    if len(outputs) < len(wanted):
        raise WrongUse(
            f"A head of the kind {kind} has {len(wanted)} outputs ({', '.join(wanted)}), but the model has "
            f"{len(outputs)}{_listed(outputs)}: choose another kind of head."
        )
    return [(name, found.float() if found.is_floating_point() else found) for name, found in outputs.items()]


def check(name: str, found: Tensor, kind: str, wanted: str, right: bool) -> None:
    """Raise WrongUse where an output is not of the shape that a kind of head has, ``wanted`` in words."""
    if not right:
        raise WrongUse(
            f"The output {name!r} of the shape {tuple(found.shape)} fits no head of the kind {kind}, which has "
            f"{wanted}: choose another kind of head."
        )


def corners(boxes: Tensor, style: Style, size: Size, *, relative: bool = False) -> Tensor:
    """Return boxes (..., 4) as x0, y0, x1, y1 in pixels of the input; ``relative`` ones are shares of its sides."""
    a, b, c, d = boxes.unbind(-1)
    if style == "yxyx":
        found = torch.stack([b, a, d, c], -1)
    elif style == "xywh":
        found = torch.stack([a, b, a + c, b + d], -1)
    elif style == "cxcywh":
        found = torch.stack([a - c / 2, b - d / 2, a + c / 2, b + d / 2], -1)
    else:
        found = boxes
    if relative:
        found = found * found.new_tensor([size[1], size[0], size[1], size[0]])
    return found


def probabilities(scores: Tensor, activation: Activation, background: Background = "") -> Tensor:
    """Return the scores (..., C) of the classes without the background, activated."""
    if activation == "sigmoid":
        scores = scores.sigmoid()
    elif activation == "softmax":
        scores = scores.softmax(-1)
    if background == "first":
        return scores[..., 1:]
    return scores[..., :-1] if background == "last" else scores


def finite(*said: Tensor) -> Tensor:
    """Return (B,) whether all that was said of an image, in tensors (B, ...), is neither NaN nor infinite."""
    return torch.stack([one.isfinite().flatten(1).all(1) for one in said]).all(0)


def proposed(
    boxes: Tensor,
    scores: Tensor,
    conf: float,
    fine: Tensor,
    *,
    labels: Tensor | None = None,
    landmarks: Tensor | None = None,
    every: bool = False,
) -> Candidates:
    """Return the candidates of a batch; ``query`` is the row of an image that each is of.

    Args:
        boxes: (B, N, 4) float32 x0, y0, x1, y1 in pixels of the input.
        scores: (B, N), or (B, N, C) of the classes.
        conf: what they score more than.
        fine: (B,) whether all is finite that the model said of an image; of one that is not there are none.
        labels: (B, N) the classes, where scores have no C.
        landmarks: (B, N, K, 2) points in pixels of the input.
        every: take each class of a box that scores enough, not the best alone.
    """
    if labels is not None:
        image, query = torch.where(scores > conf)
        score, label = scores[image, query], labels[image, query]
    elif every or not scores.shape[-1]:
        image, query, label = torch.where(scores > conf)
        score = scores[image, query, label]
    else:
        best, which = scores.max(-1)
        image, query = torch.where(best > conf)
        score, label = best[image, query], which[image, query]
    found = Candidates(
        image,
        boxes[image, query],
        score,
        label.long(),
        fine,
        None if landmarks is None else landmarks[image, query],
        query,
    )
    return without_nonfinite(found)


def without_nonfinite(found: Candidates) -> Candidates:
    """Return candidates of the finite images alone; one of a box or point that is not finite spoils its image."""
    right = found.boxes.isfinite().all(1)
    if found.landmarks is not None:
        right &= found.landmarks.isfinite().flatten(1).all(1)
    fine = found.finite.index_fill(0, found.image[~right], False)
    rest = found.only(fine[found.image])
    return Candidates(rest.image, rest.boxes, rest.scores, rest.labels, fine, rest.landmarks, rest.query)


def points(values: Tensor) -> Tensor:
    """Return x0, y0, x1, y1, … (..., 2 K) as points (..., K, 2)."""
    return values.reshape(*values.shape[:-1], -1, 2)


def grid(size: Size, strides: Sequence[int], device: torch.device, each: int = 1) -> tuple[Tensor, Tensor]:
    """Return the cells of an input, stride by stride and row by row, ``each`` times in turn.

    They are (N, 2) float32 column and row, and (N, 1) the stride in pixels.
    """
    cells, steps = [], []
    for stride in strides:
        rows, columns = (torch.arange(math.ceil(side / stride), device=device) for side in size)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        cells.append(torch.stack([x, y], -1).view(-1, 2).float().repeat_interleave(each, 0))
        steps.append(torch.full((len(cells[-1]), 1), float(stride), device=device))
    return torch.cat(cells), torch.cat(steps)


def in_words(size: Size, strides: Sequence[int], cells: int) -> str:
    """Return what an input of that size comes to with those strides, for ``check``."""
    steps = ", ".join(str(stride) for stride in strides)
    return f"{cells} cells for an input of {size[0]} × {size[1]} and the strides {steps}"


def _listed(outputs: Outputs) -> str:
    named_shapes = ", ".join(f"{name} {tuple(found.shape)}" for name, found in outputs.items())
    return f" ({named_shapes})" if named_shapes else ""
