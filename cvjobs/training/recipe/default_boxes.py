"""The default boxes of an SSD from the boxes of the data: scales and aspect ratios as torchvision lays them out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cvjobs.training.recipe.anchors import Shapes, best_overlaps

_LEAST = 0.01  # a scale, as a share of the side
_WIDEST = 5.0  # a ratio
_ROUNDS = 4
_STEPS = (1.3, 1.1, 1.03)  # by which a number is changed, one round after the other
_MOST = 2_000  # boxes that are fitted to


@dataclass(frozen=True, kw_only=True)
class DefaultBoxes:
    """Scales as shares of the side, one more than there are maps, and the ratios of each map, each taken both ways."""

    scales: tuple[float, ...]
    aspect_ratios: tuple[tuple[float, ...], ...]

    @property
    def shapes(self) -> Shapes:
        """The widths and heights that ``DefaultBoxGenerator`` makes of them, as shares of the side, (n, 2)."""
        made: list[tuple[float, float]] = []
        for at, ratios in enumerate(self.aspect_ratios):
            own, between = self.scales[at], (self.scales[at] * self.scales[at + 1]) ** 0.5
            made += [(own, own), (between, between)]
            for ratio in ratios:
                made += [(own * ratio**0.5, own / ratio**0.5), (own / ratio**0.5, own * ratio**0.5)]
        return np.array(made).clip(0, 1)


def fitted(boxes: Shapes, like: DefaultBoxes) -> DefaultBoxes:
    """Return default boxes of the layout of others: the best mean IoU with boxes that is found by changing one number.

    From those others, and from scales and ratios that stand evenly among the boxes, each number is made larger and
    smaller by ever smaller steps as long as the mean IoU grows; scales stay in their order. The same for the same boxes
    in any order. Of more than 2,000 boxes as many are taken, evenly by area.

    Args:
        boxes: widths and heights as shares of the side, above 0, float64 (n, 2).
        like: how many scales, and ratios of each map.
    """
    ordered = boxes[np.lexsort((boxes[:, 0], boxes.prod(axis=1)))]
    few = ordered[np.linspace(0, len(ordered) - 1, min(len(ordered), _MOST)).round().astype(np.int64)]
    found = [_improved(few, start) for start in (like, _even(few, like))]
    return max(found, key=lambda one: one[0])[1]


def _even(boxes: Shapes, like: DefaultBoxes) -> DefaultBoxes:
    count = len(like.scales)
    sizes = np.quantile(np.sqrt(boxes.prod(axis=1)), (np.arange(count) + 0.5) / count).clip(_LEAST)
    long = np.exp(np.abs(np.log(boxes[:, 1] / boxes[:, 0])))
    ratios = tuple(
        tuple(np.quantile(long, (np.arange(len(own)) + 1) / (len(own) + 1)).clip(1.0, _WIDEST).tolist())
        for own in like.aspect_ratios
    )
    return DefaultBoxes(scales=tuple(sizes.tolist()), aspect_ratios=ratios)


def _improved(boxes: Shapes, start: DefaultBoxes) -> tuple[float, DefaultBoxes]:
    """Return the mean IoU of the best that is found from a start, and it."""
    best, numbers = start, np.array([*start.scales, *(ratio for own in start.aspect_ratios for ratio in own)])
    score = _mean(boxes, best)
    for step in _STEPS:
        for _ in range(_ROUNDS):
            before = score
            for at in range(len(numbers)):
                for factor in (step, 1 / step):
                    changed = numbers.copy()
                    changed[at] *= factor
                    made = _made(changed, start)
                    if made is not None and (mean := _mean(boxes, made)) > score:
                        best, numbers, score = made, changed, mean
            if score == before:
                break
    rounded = tuple(tuple(round(ratio, 3) for ratio in own) for own in best.aspect_ratios)
    return score, replace(best, scales=tuple(round(scale, 4) for scale in best.scales), aspect_ratios=rounded)


def _made(numbers: NDArray[np.float64], like: DefaultBoxes) -> DefaultBoxes | None:
    """Return the default boxes of these numbers, None where they are not in order or out of bounds."""
    count = len(like.scales)
    scales, ratios = numbers[:count], numbers[count:]
    if (np.diff(scales) < 0).any() or scales[0] < _LEAST or (ratios < 1).any() or (ratios > _WIDEST).any():
        return None
    ends = np.cumsum([0, *map(len, like.aspect_ratios)])
    own = tuple(tuple(ratios[start:end].tolist()) for start, end in pairwise(ends.tolist()))
    return DefaultBoxes(scales=tuple(scales.tolist()), aspect_ratios=own)


def _mean(boxes: Shapes, made: DefaultBoxes) -> float:
    return float(best_overlaps(boxes, made.shapes).mean())
