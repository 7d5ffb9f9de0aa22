"""Heads of YOLO v3 to v12 whose boxes are decoded, with points and coefficients of masks where they have them."""

from __future__ import annotations

from dataclasses import dataclass

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
)

KIND = "yolo"


@dataclass(frozen=True, kw_only=True)
class YoloRow:
    """What a row has: the box, the object, the classes, the landmarks, the coefficients; of most heads not all.

    ``objectness``: that it is an object (v3 to v7, decoded YOLOX); a score is that times the class's. ``landmarks``
    are points of ``values`` numbers: 2 are x and y, a third says whether it is seen; ``landmarks_first`` has them
    before the classes (YOLOv5-face). ``coefficients`` are numbers of a mask, see ``proto_masks``.
    """

    objectness: bool = False
    landmarks: int = 0
    values: int = 3
    landmarks_first: bool = False
    coefficients: int = 0


def candidates(
    outputs: Outputs,
    size: Size,
    conf: float,
    *,
    row: YoloRow,
    channels_first: bool,
    style: Style = "cxcywh",
    relative: bool = False,
    every: bool = False,
) -> Candidates:
    """Return the candidates of a batch: the best class of each box.

    Args:
        outputs: ``boxes`` (B, N, row), or with ``channels_first`` (v8, v9, 11, 12) (B, row, N).
        size: the input's (height, width) in pixels.
        conf: what they score more than.
        row: what a row has.
        channels_first: whether rows are columns.
        style: what the four numbers of a box are.
        relative: whether they and the points are shares of the input's sides.
        every: take each class of a box that scores enough, not the best alone.

    Raises:
        WrongUse: the output has another shape.
    """
    (name, said), *_ = named(outputs, KIND, "boxes (B, N, row)")
    spots = row.landmarks * row.values
    before, after = 4 + row.objectness, spots + row.coefficients
    width = f"{before} + classes" + f" + {after}" * bool(after)
    wanted = f"(B, {width}, N)" if channels_first else f"(B, N, {width})"
    check(name, said, KIND, wanted, said.dim() == 3)
    rows = said.transpose(1, 2) if channels_first else said
    classes = rows.shape[2] - before - after
    check(name, said, KIND, wanted, classes > 0)
    middle = [spots, classes] if row.landmarks_first else [classes, spots]
    boxes, objects, *both, _ = torch.split(rows, [4, int(row.objectness), *middle, row.coefficients], 2)
    flat, scores = both if row.landmarks_first else reversed(both)
    if row.objectness:
        scores = scores * objects
    found = _points(flat, row.landmarks, size if relative else None) if row.landmarks else None
    placed = corners(boxes, style, size, relative=relative)
    return proposed(placed, scores, conf, finite(rows), landmarks=found, every=every)


def _points(flat: Tensor, count: int, size: Size | None) -> Tensor:
    """Return (B, N, K, 2) of (B, N, K * values)."""
    spots = flat.reshape(*flat.shape[:2], count, -1)[..., :2]
    return spots if size is None else spots * spots.new_tensor([size[1], size[0]])
