"""How well scores tell the images that show a class from the others: over all thresholds, at one, at the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]
Truth = NDArray[np.integer] | NDArray[np.bool_]  # 1 for an image that shows the class


@dataclass(frozen=True)
class Cut:
    """What taking every image that scores at least ``score`` comes to; precision is 0 where that is none."""

    score: float
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def cut(scores: Scores, truth: Truth, score: float) -> Cut:
    """Return what a threshold comes to, of (N,) scores of a class that some of N images show."""
    taken = scores >= score
    hits = int(truth[taken].sum())
    return Cut(score, hits / max(int(taken.sum()), 1), hits / int(truth.sum()))


def best_cut(scores: Scores, truth: Truth) -> Cut:
    """Return the threshold with the highest F1, of equal ones the highest; see ``cut``."""
    order = np.argsort(-scores, kind="stable")
    found = scores[order]
    ends = np.append(np.flatnonzero(np.diff(found)), len(found) - 1)  # equal scores are taken together
    hits = truth[order].cumsum()[ends]
    f1 = 2 * hits / (ends + 1 + hits[-1])
    at = int(f1.argmax())
    return Cut(float(found[ends[at]]), float(hits[at] / (ends[at] + 1)), float(hits[at] / hits[-1]))


def roc_auc(scores: Scores, truth: Truth) -> float:
    """Return how often an image of the class scores above one that is none, a tie counting half (Hanley, McNeil 1982).

    There are images of both kinds.
    """
    _, at, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[at]  # of equal scores their mean, from 1
    positive = int(truth.sum())
    above = float(ranks[truth.astype(bool)].sum()) - positive * (positive + 1) / 2
    return above / (positive * (len(truth) - positive))
