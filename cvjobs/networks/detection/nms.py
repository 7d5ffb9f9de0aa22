"""Boxes that a detector proposes for a batch, and which of them are kept: NMS within a class or across classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from cvjobs.networks.detection.settings import Rules

# On a GPU, boxes of one call to NMS: its matrix of overlaps takes this squared, in bits (200 MB).
TOGETHER = 40_000


@dataclass(frozen=True)
class Candidates:
    """Boxes of a batch before NMS.

    ``image`` (N,) is the position in the batch of each, ``boxes`` (N, 4) float32 x0, y0, x1, y1 in pixels of the
    batch's tensor, of some models also beyond it, ``scores`` (N,) float32, ``labels`` (N,) the class's index of the
    model. ``finite`` (B,) tells the images without NaN or infinity in what the model said about them. Of some models,
    ``landmarks`` (N, K, 2) float32 are the x and y of points of each object, and ``query`` (N,) is which of an image's
    guesses each is, by which its mask is found.
    """

    image: Tensor
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    finite: Tensor
    landmarks: Tensor | None = None
    query: Tensor | None = None

    def only(self, rows: Tensor) -> Candidates:
        """Return some of them, by index or mask."""
        return Candidates(
            self.image[rows],
            self.boxes[rows],
            self.scores[rows],
            self.labels[rows],
            self.finite,
            None if self.landmarks is None else self.landmarks[rows],
            None if self.query is None else self.query[rows],
        )


class Architecture(Protocol):
    """How a kind of detector comes to candidates; several threads call it at once."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def dtype(self) -> torch.dtype:
        """What it wants its images in."""

    def candidates(
        self, images: Tensor, sizes: list[tuple[int, int]], conf: float
    ) -> tuple[Candidates, dict[str, Tensor]]:
        """Return the boxes that score above ``conf``, and the feature maps.

        ``images`` (B, 3, H, W) are normalised, each in its place (height, width) of its ``sizes``, by the framing.
        """

    def masks(self, features: dict[str, Tensor], found: list[Candidates], sizes: list[tuple[int, int]]) -> Tensor:
        """Return the masks of what was kept of each image, (N, h, w) float32, where the architecture has them.

        They are probabilities in the cells of each box, or, where the network says so, values in those of its image
        that are above 0 on the object.
        """


def kept(found: Candidates, count: int, rules: Rules, classes: Tensor) -> list[Tensor]:
    """Return for each of ``count`` images the rows of the candidates that remain, best first.

    As torchvision's post-processing, but for labels that are not among ``classes``, which are gone before anything
    else.
    """
    wanted = torch.where(torch.isin(found.labels, classes))[0]
    found = found.only(wanted)
    together = found.image.is_cuda and len(found.image) <= TOGETHER
    remaining = _all_at_once(found, rules) if together else None
    images = found.image if remaining is None else found.image[remaining]
    result = []
    for number in range(count):
        rows = torch.where(images == number)[0]
        if remaining is not None:
            best = remaining[rows]
        else:
            best = rows[suppressed(found.boxes[rows], found.scores[rows], found.labels[rows], rules)]
        result.append(wanted[best[: rules.max_det]])
    return result


def suppressed(boxes: Tensor, scores: Tensor, labels: Tensor, rules: Rules) -> Tensor:
    """Return which boxes of one image NMS leaves, best first."""
    if rules.per_class:
        # torchvision moves the boxes of each class to a place of their own, which those below 0 would leave.
        if len(boxes) and boxes.min() < 0:
            boxes = boxes - boxes.min()
        rows: Tensor = batched_nms(boxes, scores, labels, rules.iou)
    else:
        rows = nms(boxes, scores, rules.iou)
    return rows


def _all_at_once(found: Candidates, rules: Rules) -> Tensor:
    """Return what remains of a batch by a single NMS: every image, or class of an image, in a place of its own.

    In float64, for in float32 a box that is moved a million pixels to the right loses a tenth of a pixel.
    """
    if not len(found.boxes):
        return found.image
    group = found.image
    if rules.per_class:
        group = group * (found.labels.max() + 1) + found.labels
    boxes = found.boxes.double()
    length = boxes.max() - boxes.min().clamp(max=0) + 1
    rows: Tensor = nms(boxes + group[:, None] * length, found.scores.double(), rules.iou)
    return rows


def best_of_groups(scores: Tensor, groups: Tensor, most: int) -> Tensor:
    """Return the rows of the ``most`` highest scores within each group, group by group."""
    order = scores.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    sorted_groups = groups[order]
    rank = torch.arange(len(order), device=order.device) - torch.searchsorted(sorted_groups, sorted_groups)
    return order[rank < most]
