"""Finds a square of light and five points in it: a detector with landmarks for tests, of no weights.

It is a model family for tests, which `with_toys` adds to the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cvjobs.common.categories import Category
from cvjobs.images.transform import Transform
from cvjobs.networks.detection.detector import Detector
from cvjobs.networks.detection.nms import Candidates
from cvjobs.networks.detection.settings import Rules
from cvjobs.networks.licences import NONE, Licence
from cvjobs.networks.weights import RANDOM

NAMES = ["right eye", "left eye", "nose", "right corner of the mouth", "left corner of the mouth"]
PLACES = torch.tensor([[0.3, 0.3], [0.7, 0.3], [0.5, 0.5], [0.35, 0.75], [0.65, 0.8]])  # in shares of the box
LIGHT = 0.8


def names(task: str) -> list[str]:
    """Return the names of the models."""
    return ["toy"] if task == "detect" else []


def licence(name: str) -> Licence:
    """Of no weights."""
    del name
    return Licence(code="Apache-2.0", weights=NONE)


def detector(name: str, weights: str, labels: Sequence[str]) -> Detector:
    """Return the only one."""
    del weights, labels
    return Detector(
        name=f"faces/{name}",
        weights=RANDOM,
        transform=Transform(fit="native", mean=(0, 0, 0), std=(1, 1, 1)),
        categories=[Category(0, "face")],
        rules=Rules(conf=0.5, iou=0.5, max_det=10, short=64, long=128),
        module=nn.Identity(),
        architecture=Faces,
        folded="",
        also={"landmarks": NAMES},
    )


class Faces:
    """The box around what is light, with the share of light in it as its score, less to the right."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, module: nn.Module) -> None:
        del module

    def candidates(
        self, images: Tensor, sizes: list[tuple[int, int]], conf: float
    ) -> tuple[Candidates, dict[str, Tensor]]:
        """See ``Architecture``."""
        rows: list[Any] = []
        for number, (image, (height, width)) in enumerate(zip(images, sizes, strict=True)):
            y, x = torch.where(image.mean(0)[:height, :width] > LIGHT)
            if not len(x):
                continue
            box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
            sides = box[2:] - box[:2]
            score = len(x) / sides.prod() - box[0] / (4 * width)
            if score > conf:
                rows.append((torch.tensor(number), box, score, torch.tensor(0), box[:2] + PLACES * sides))
        empty = (torch.empty(0).long(), torch.empty(0, 4), torch.empty(0), torch.empty(0).long(), torch.empty(0, 5, 2))
        image_, boxes, scores, classes, points = map(torch.stack, zip(*rows, strict=True)) if rows else empty
        fine = images.isfinite().flatten(1).all(1)
        return Candidates(image_, boxes, scores, classes, fine, points), {}

    def masks(self, features: dict[str, Tensor], found: list[Candidates], sizes: list[tuple[int, int]]) -> Tensor:
        """See ``Architecture``; it has none."""
        raise NotImplementedError
