"""What the queries of a universal segmentation model say of an image: the class of each pixel, or objects.

As the post-processing of transformers for each kind of model, but for memory: nothing here has a number for each query
and each pixel of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as images

from cvjobs.images.masks import rle
from cvjobs.networks.segmentation import outlines
from cvjobs.networks.segmentation.class_maps import class_map

GRID = (384, 384)  # the cells to which Mask2Former's masks are resized, whatever the image's proportions
STRIP = 1 << 22  # pixels that are looked at together
LEAST = 0.5  # of a mask's value times its score, where OneFormer counts what a mask would like to have
SHARE = 0.8  # of it that must be left to a mask, where others are above it elsewhere

Size = tuple[int, int]  # (height, width) in pixels


@dataclass(frozen=True)
class Said:
    """What a model said of an image, or of a window of it: float32 logits, of no class last.

    ``classes`` are (queries, classes + 1), ``masks`` (queries, h, w).
    """

    classes: Tensor
    masks: Tensor

    def to(self, size: Size) -> Said:
        """Return it with masks of that size."""
        return Said(self.classes, functional.interpolate(self.masks[None], size, mode="bilinear")[0])

    def within(self, size: Size) -> Said:
        """Return it with the upper left part of the masks, of that size."""
        return Said(self.classes, self.masks[:, : size[0], : size[1]])

    @property
    def finite(self) -> bool:
        """Whether there is neither NaN nor infinity."""
        return bool(self.classes.isfinite().all() and self.masks.isfinite().all())

    @property
    def scores(self) -> Tensor:
        """The score of each class at each place, (classes, h, w)."""
        return torch.einsum("qc,qhw->chw", self.classes.softmax(-1)[:, :-1], self.masks.sigmoid())


@dataclass(frozen=True)
class OutlinedObjects:
    """Objects of an image: their ``scores`` (N,), ``labels`` (N,), which are the model's numbers, and masks."""

    scores: Tensor
    labels: Tensor
    rles: list[str]


def most_likely(scores: Tensor, size: Size, *, antialias: bool = False) -> Tensor:
    """Return the class of each pixel, (height, width), by scores (classes, h, w), which are resized to the image's.

    ``antialias``: they are where that makes them fewer.
    """
    scores = _shrunk(scores, size) if antialias else scores
    return class_map(scores.contiguous(), (scores.shape[1], scores.shape[2]), size)


def stitched(windows: Sequence[Said], starts: Sequence[int], canvas: Size, frame: Size, *, upright: bool) -> Tensor:
    """Return the scores (classes, *frame) of an image by what is said of its windows, the mean where they overlap.

    ``starts`` are where they begin along its height (``upright``) or its width, ``canvas`` is the size of each.
    """
    side = 0 if upright else 1
    total = windows[0].masks.new_zeros(windows[0].classes.shape[1] - 1, *frame)
    count = windows[0].masks.new_zeros(frame[side])
    for said, start in zip(windows, starts, strict=True):
        total.narrow(1 + side, start, canvas[side]).add_(said.to(canvas).scores)
        count.narrow(0, start, canvas[side]).add_(1)
    count = count.clamp_(min=1)
    return total.div_(count[:, None] if upright else count)


def mask2former(said: Said, size: Size, conf: float) -> OutlinedObjects:
    """Return the objects of an image of that size that score at least ``conf``; they may overlap."""
    scores, query, labels = _best(said.classes)
    some = scores >= conf  # the mask's own score, at most 1, is a factor
    if not some.any():
        return OutlinedObjects(scores[some], labels[some], [])
    masks = Said(said.classes, said.masks[query[some]]).to(GRID).masks
    inside = masks > 0
    sure = (masks.sigmoid() * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)
    return _seen(scores[some] * sure, labels[some], outlines.of_cells(inside.cpu().numpy(), size), conf)


def eomt(said: Said, size: Size, conf: float) -> OutlinedObjects:
    """Return the objects as ``mask2former`` does; the masks of ``said`` cover the image and nothing else."""
    scores, labels = said.classes.softmax(-1)[:, :-1].max(-1)
    some = torch.where(scores >= conf)[0]
    some = some[said.masks[some].flatten(1).amax(1) > 0]
    sure = [_mean_inside(mask, size) for mask in said.masks[some]]
    rles = outlines.of_image(said.masks[some].cpu().numpy(), size)
    return _seen(scores[some] * scores.new_tensor(sure), labels[some], rles, conf)


def oneformer(said: Said, size: Size, conf: float) -> OutlinedObjects:
    """Return the objects of an image of that size that score above ``conf``.

    Each pixel is of the object with the highest value there; who keeps too little of what it would like is none.
    """
    scores, query, labels = _best(said.classes)
    some = scores > conf
    scores, labels = scores[some], labels[some]
    if not len(scores):
        return OutlinedObjects(scores, labels, [])
    values = _shrunk(said.masks[query[some]] * scores[:, None, None], size)
    winner = most_likely(values, size).cpu().numpy()
    rles = outlines.of_numbers(winner, range(len(scores)))
    liked = rle.areas(outlines.of_image((values - LEAST).cpu().numpy(), size))
    own = rle.areas(rles)
    kept = (own > 0) & (liked > 0) & (own > SHARE * liked)
    rows = torch.from_numpy(kept).to(scores.device)
    return OutlinedObjects(scores[rows], labels[rows], [text for text, stays in zip(rles, kept, strict=True) if stays])


def _best(classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scores, queries and classes of the best guesses, as many as there are queries."""
    likely = classes.softmax(-1)[:, :-1]
    scores, place = likely.flatten().topk(len(likely))
    return scores, place // likely.shape[1], place % likely.shape[1]


def _seen(scores: Tensor, labels: Tensor, rles: list[str], conf: float) -> OutlinedObjects:
    """Return the objects that score enough and have pixels."""
    rows = torch.where((scores >= conf).cpu() & torch.from_numpy(rle.areas(rles) > 0))[0]
    chosen = rows.to(scores.device)
    return OutlinedObjects(scores[chosen], labels[chosen], [rles[row] for row in rows.tolist()])


def _mean_inside(mask: Tensor, size: Size) -> float:
    """Return the mean probability of the pixels of a mask, of logits (h, w) that are resized to the image's size."""
    height, width = size
    positive = mask > 0
    top, bottom = _reach(positive.any(1), height)
    left, right = _reach(positive.any(0), width)
    rows = functional.interpolate(mask[None, None], (len(mask), width), mode="bilinear")[0, 0, :, left:right]
    place = np.maximum((np.arange(height) + 0.5) * (len(mask) / height) - 0.5, 0)
    above = torch.from_numpy(np.minimum(place.astype(np.int64), len(mask) - 1)).to(mask.device)
    share = torch.from_numpy(place.astype(np.float32)).to(mask.device) - above
    total, count = mask.new_zeros((), dtype=torch.float64), mask.new_zeros((), dtype=torch.int64)
    together = max(STRIP // (right - left), 1)
    for start in range(top, bottom, together):
        end = min(start + together, bottom)
        first, part = above[start:end], share[start:end, None]
        values = torch.lerp(rows[first], rows[(first + 1).clamp_(max=len(mask) - 1)], part)
        inside = values > 0
        total += (values.sigmoid_() * inside).sum(dtype=torch.float64)
        count += inside.sum()
    return float(total / (count + 1e-6))


def _reach(positive: Tensor, size: int) -> tuple[int, int]:
    """Return the first and the end of the ``size`` pixels that depend on a positive cell, of which there is one."""
    cells = torch.where(positive)[0]
    pixels = size / len(positive)
    first, last = int((float(cells[0]) - 0.5) * pixels - 0.5), math.ceil((float(cells[-1]) + 1.5) * pixels)
    return max(first, 0), min(last + 1, size)


def _shrunk(values: Tensor, size: Size) -> Tensor:
    """Return values (N, h, w) with the sides that are longer than the image's made as short, antialiased."""
    shorter = [min(have, want) for have, want in zip(values.shape[1:], size, strict=True)]
    return values if list(values.shape[1:]) == shorter else images.resize(values, shorter)
