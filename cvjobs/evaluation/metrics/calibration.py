"""Whether a classifier is as often right as its scores say: bins of scores, and how far the two are apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 10


@dataclass(frozen=True)
class Bin:
    """The images whose score is above ``low`` and at most ``high``: their mean score, and the share that is right."""

    low: float
    high: float
    count: int
    score: float
    right: float


def bins(scores: NDArray[np.floating], right: NDArray[np.bool_], count: int = BINS) -> list[Bin]:
    """Return the bins, equally wide from 0 to 1, that have images.

    Args:
        scores: The probability of each image's likeliest class, (N,), from 0 to 1.
        right: Whether that class is the image's, (N,).
        count: How many bins there are.
    """
    scores = scores.astype(np.float64)
    edges = np.ceil((scores * count).round(5))  # a float32 of 0.1 is a little more than 0.1
    of = np.clip(edges.astype(np.int64) - 1, 0, count - 1)
    return [
        Bin(i / count, (i + 1) / count, int(own.sum()), float(scores[own].mean()), float(right[own].mean()))
        for i in range(count)
        if (own := of == i).any()
    ]


def error(found: list[Bin]) -> float:
    """Return the expected calibration error (Naeini et al. 2015): the mean over images of how far their bin is off."""
    images = sum(one.count for one in found)
    return sum(one.count * abs(one.score - one.right) for one in found) / images if images else 0.0
