"""A table of found boxes: YOLO v10 and v26, the (N, 7) of YOLOv7, DetectionOutput, PaddleDetection and their like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from cvjobs.networks.detection.nms import Candidates
from cvjobs.networks.onnx.heads.proposals import (
    Outputs,
    Size,
    Style,
    check,
    corners,
    finite,
    named,
    proposed,
    without_nonfinite,
)

KIND = "rows"
Column = Literal["image", "box", "score", "class"]


def candidates(
    outputs: Outputs,
    size: Size,
    conf: float,
    *,
    count: int,
    columns: Sequence[Column] = ("box", "score", "class"),
    style: Style = "xyxy",
    relative: bool = False,
    landmarks: int = 0,
    values: int = 3,
    coefficients: int = 0,
) -> Candidates:
    """Return the candidates of a batch.

    Args:
        outputs: ``rows`` (B, N, columns), or where ``columns`` has ``image`` (N, columns), also with sides of 1 before
            N. Rows of an image that is none of the batch's are empty.
        size: the input's (height, width) in pixels.
        conf: what they score more than.
        count: how many images the batch has.
        columns: what a row has, of which the box has four numbers; landmarks and coefficients follow.
        style: what the four numbers of a box are.
        relative: whether they and the points are shares of the input's sides.
        landmarks: how many points a row has at last.
        values: numbers of a point: 2 are x and y, a third says whether it is seen.
        coefficients: how many numbers of a mask a row has after that, see ``proto_masks``.

    Raises:
        WrongUse: the output has another shape.
    """
    (name, said), *_ = named(outputs, KIND, "rows (B, N, columns)")
    widths = {column: 4 if column == "box" else 1 for column in columns}
    width = sum(widths.values()) + landmarks * values + coefficients
    flat = "image" in columns
    if flat:
        right = said.dim() >= 2 and said.shape[-1] == width and said.numel() == said.shape[-2] * width
        check(name, said, KIND, f"(N, {width})", right)
        said = said.reshape(1, -1, width)
    else:
        check(name, said, KIND, f"({count}, N, {width})", said.dim() == 3 and said.shape[::2] == (count, width))
    rest = width - sum(widths.values())
    parts = dict(zip((*columns, "points"), torch.split(said, [*widths.values(), rest], 2), strict=True))
    boxes = corners(parts["box"], style, size, relative=relative)
    spots = None
    if landmarks:
        spots = parts["points"][..., : landmarks * values].reshape(*said.shape[:2], landmarks, values)[..., :2]
        spots = spots * (spots.new_tensor([size[1], size[0]]) if relative else 1)
    scores, labels = parts["score"][..., 0], parts["class"][..., 0]
    if not flat:
        return proposed(boxes, scores, conf, finite(said), labels=labels, landmarks=spots)
    return _by_image(parts["image"][0, :, 0], said[0], (boxes[0], scores[0], labels[0]), spots, conf, count)


def _by_image(
    of: Tensor, said: Tensor, found: tuple[Tensor, Tensor, Tensor], spots: Tensor | None, conf: float, count: int
) -> Candidates:
    """Return the candidates of rows (N, columns) that say of which image they are, in the order of the images."""
    boxes, scores, labels = found
    right = said.isfinite().all(1)
    known = of.isfinite() & (of >= 0) & (of < count)
    images = torch.where(known, of, 0).long()
    fine = torch.ones(count, dtype=torch.bool, device=said.device)
    fine[images[known & ~right]] = False
    if not of.isfinite().all():
        fine[:] = False
    rows = torch.where(known & right & (scores > conf))[0]
    rows = rows[images[rows].argsort(stable=True)]
    return without_nonfinite(
        Candidates(
            images[rows],
            boxes[rows],
            scores[rows],
            labels[rows].long(),
            fine,
            None if spots is None else spots[0, rows],
            rows,
        )
    )
