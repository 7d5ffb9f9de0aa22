"""Anchors of a detector from the boxes of the data: k-means by their overlap, and the recall that anchors can reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Shapes = NDArray[np.float64]
"""Widths and heights in pixels, float64 (n, 2)."""

_MOST = 10_000  # boxes that anchors are fitted to
_ROUNDS = 100
_LEAST = 2.0  # pixels of a size
_THINNEST = 1.5  # pixels of a side; one of 1 is rounded to nothing
_BLOCK = 65_536  # boxes whose overlaps are computed at once


@dataclass(frozen=True, kw_only=True)
class AnchorLevels:
    """Anchors as torchvision's ``AnchorGenerator`` takes them: of each level each size with each aspect ratio.

    ``sizes`` are square roots of areas in pixels, ``aspect_ratios`` heights by widths; each has a tuple a level,
    the finest first.
    """

    sizes: tuple[tuple[float, ...], ...]
    aspect_ratios: tuple[tuple[float, ...], ...]

    @property
    def shapes(self) -> Shapes:
        """The widths and heights that ``AnchorGenerator`` makes of them, which are even; by level, ratio and size."""
        made = []
        for sizes, ratios in zip(self.sizes, self.aspect_ratios, strict=True):
            roots = np.sqrt(np.array(ratios, np.float32))[:, None]
            sides = np.array(sizes, np.float32)[None, :]
            made.append(np.stack([(1 / roots * sides).ravel(), (roots * sides).ravel()], axis=1))
        return 2 * (np.concatenate(made) / 2).round().astype(np.float64)


FASTER_RCNN = AnchorLevels(sizes=((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)), aspect_ratios=((0.5, 1.0, 2.0),) * 5)
"""The anchors of torchvision's Faster R-CNN and Mask R-CNN with ResNet-50 FPN."""


def overlaps(boxes: Shapes, anchors: Shapes) -> Shapes:
    """Return the IoU of each box (n, 2) with each anchor (k, 2) where their centres are the same, float64 (n, k)."""
    inner = np.minimum(boxes[:, None, 0], anchors[None, :, 0]) * np.minimum(boxes[:, None, 1], anchors[None, :, 1])
    whole = boxes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None, :] - inner
    found: Shapes = inner / whole
    return found


def best_overlaps(boxes: Shapes, anchors: Shapes) -> NDArray[np.float64]:
    """Return the IoU of each box with the anchor of the nearest shape, float64 (n,)."""
    blocks = [boxes[at : at + _BLOCK] for at in range(0, len(boxes), _BLOCK)]
    return np.concatenate([np.zeros(0), *(overlaps(block, anchors).max(axis=1) for block in blocks)])


def recall(boxes: Shapes, anchors: Shapes, threshold: float) -> float:
    """Return the share of boxes that have an anchor with an IoU of ``threshold`` or more where it lies best.

    No detector matches more of them, for its anchors lie on a grid; 0 where there are no boxes.
    """
    best = best_overlaps(boxes, anchors)
    return float((best >= threshold).mean()) if len(best) else 0.0


def k_means(boxes: Shapes, count: int) -> Shapes:
    """Return ``count`` anchors, (count, 2), by area: k-means over widths and heights with 1 - IoU as the distance.

    The means are those of widths and of heights; of all rounds the best mean IoU counts. The same for the same boxes in
    any order. Of more than 10,000 boxes as many are taken, evenly by area.

    Args:
        boxes: Widths and heights in pixels at the size of the training, above 0, float64 (n, 2).
        count: How many anchors.

    Raises:
        ValueError: there is no box, or one without area.
    """
    boxes = _sample(boxes)
    centres = _first(boxes, count)
    best, score, before = centres, -1.0, np.zeros(0, np.int64)
    for _ in range(_ROUNDS):
        found = overlaps(boxes, centres)
        own = found.argmax(axis=1)
        if found.max(axis=1).mean() > score:
            best, score = centres, float(found.max(axis=1).mean())
        if np.array_equal(own, before):
            break
        centres, before = _means(boxes, own, centres), own
    best = best.clip(_LEAST)
    return best[np.lexsort((best[:, 0], best.prod(axis=1)))]


def fitted(boxes: Shapes, levels: int, sizes: int = 1, ratios: int = 3) -> AnchorLevels:
    """Return anchors for ``AnchorGenerator``: ``levels`` maps with ``sizes`` times ``ratios`` anchors each.

    ``k_means`` finds as many anchors; by their area they go to levels, and within them to sizes. As a level has each
    size with each ratio, both are fitted again, as means of the logarithms of the boxes that are nearest to them, from
    there and from sizes and ratios that stand evenly among the boxes; of all rounds the best mean IoU counts. The same
    for the same boxes in any order.

    Args:
        boxes: Widths and heights in pixels at the size of the training, above 0, float64 (n, 2).
        levels: The feature maps, such as 5 of a feature pyramid, or 1 of a plain backbone.
        sizes: The sizes of a level.
        ratios: The aspect ratios of a level.

    Raises:
        ValueError: there is no box, or one without area.
    """
    boxes = _sample(boxes)
    size, ratio = np.log(boxes.prod(axis=1)) / 2, np.log(boxes[:, 1] / boxes[:, 0])
    means = k_means(boxes, levels * sizes * ratios).reshape(levels, sizes, ratios, 2)
    grouped = np.log(means.prod(axis=3)).mean(axis=2) / 2
    shaped = np.sort(np.log(means[..., 1] / means[..., 0]), axis=2).mean(axis=1)
    even = np.quantile(size, (np.arange(levels * sizes) + 0.5) / (levels * sizes)).reshape(levels, sizes)
    spread = np.tile(np.quantile(ratio, (np.arange(ratios) + 0.5) / ratios), (levels, 1))
    found = [_refined(boxes, size, ratio, *start) for start in ((grouped, shaped), (even, spread))]
    return max(found, key=lambda one: one[0])[1]


def _sample(boxes: Shapes) -> Shapes:
    """Return boxes sorted by area, few of many."""
    if not len(boxes) or not (np.isfinite(boxes) & (boxes > 0)).all():
        raise ValueError("Anchors are fitted to one box or more, whose sides are above 0.")
    ordered = boxes[np.lexsort((boxes[:, 0], boxes.prod(axis=1)))].astype(np.float64)
    step = np.linspace(0, len(ordered) - 1, min(len(ordered), _MOST)).round().astype(np.int64)
    taken: Shapes = ordered[step]
    return taken


def _first(boxes: Shapes, count: int) -> Shapes:
    """Return boxes to begin with, each drawn by its distance to those before it (k-means++), with one seed."""
    random = np.random.Generator(np.random.PCG64(0))
    chosen = [boxes[len(boxes) // 2]]
    distance = np.full(len(boxes), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, (1 - overlaps(boxes, chosen[-1][None])[:, 0]).clip(0))
        steps = np.cumsum(distance**2)
        at = int(np.searchsorted(steps, random.random() * steps[-1], side="right"))
        chosen.append(boxes[min(at, len(boxes) - 1)])
    return np.array(chosen)


def _means(boxes: Shapes, own: NDArray[np.int64], centres: Shapes) -> Shapes:
    """Return the mean box of each centre; one without boxes stays."""
    count = np.bincount(own, minlength=len(centres))
    sums = np.stack([np.bincount(own, side, len(centres)) for side in boxes.T], axis=1)
    return np.where(count[:, None] > 0, sums / count.clip(1)[:, None], centres)


def _refined(
    boxes: Shapes, size: NDArray[np.float64], ratio: NDArray[np.float64], sizes: Shapes, ratios: Shapes
) -> tuple[float, AnchorLevels]:
    """Return the best mean IoU and its anchors.

    Args:
        boxes: The boxes, (n, 2).
        size: The logarithm of each one's size, (n,).
        ratio: The logarithm of its aspect ratio, (n,).
        sizes: Logarithms of sizes to begin with, (levels, sizes).
        ratios: Logarithms of ratios to begin with, (levels, ratios).
    """
    each, shapes = sizes.shape[1], ratios.shape[1]
    best, score, before = None, -1.0, np.zeros(0, np.int64)
    for _ in range(_ROUNDS):
        sizes = np.sort(sizes, axis=1).clip(np.log(_LEAST))
        thinnest = 2 * (sizes[:, :1] - np.log(_THINNEST))
        ratios = np.sort(ratios, axis=1).clip(-thinnest, thinnest)
        made = AnchorLevels(sizes=_rows(np.exp(sizes)), aspect_ratios=_rows(np.exp(ratios)))
        found = overlaps(boxes, made.shapes)
        own = found.argmax(axis=1)
        mean = float(found.max(axis=1).mean())
        if best is None or mean > score:
            best, score = made, mean
        if np.array_equal(own, before):
            break
        level, which = np.divmod(own, shapes * each)
        sizes = _mean_of(size, level * each + which % each, sizes)
        ratios = _mean_of(ratio, level * shapes + which // each, ratios)
        before = own
    assert best is not None
    return score, best


def _mean_of(values: NDArray[np.float64], own: NDArray[np.int64], last: Shapes) -> Shapes:
    """Return the mean of the values of each place of ``last``; one without values stays."""
    count = np.bincount(own, minlength=last.size)
    sums = np.bincount(own, values, last.size)
    return np.where(count > 0, sums / count.clip(1), last.ravel()).reshape(last.shape)


def _rows(values: Shapes) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(value, 3) for value in row) for row in values.tolist())
