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
    thresholds, taken, hits = _taken(scores, truth)
    f1 = 2 * hits / (taken + hits[-1])
    at = int(f1.argmax())
    return Cut(float(thresholds[at]), float(hits[at] / taken[at]), float(hits[at] / hits[-1]))


def mean_average_precision(scores: Scores, truth: Truth) -> float:
    """Return the mean over the classes that are there of the average precision, of (N, C) scores; 0 without any."""
    precisions = [average_precision(scores[:, column], truth[:, column]) for column in np.flatnonzero(truth.any(0))]
    return float(np.mean(precisions)) if precisions else 0.0


def average_precision(scores: Scores, truth: Truth) -> float:
    """Return the area under precision over recall of a class that some of N images show.

    Images of equal score are taken together, as in scikit-learn's ``average_precision_score``.
    """
    _, taken, hits = _taken(scores, truth)
    recall = np.diff(hits, prepend=0) / hits[-1]
    return float((recall * hits / taken).sum())


def _taken(scores: Scores, truth: Truth) -> tuple[Scores, NDArray[np.int64], NDArray[np.int64]]:
    """Return the thresholds that there are, the highest first, and how many images each takes, and of the class."""
    order = np.argsort(-scores, kind="stable")
    found = scores[order]
    ends = np.append(np.flatnonzero(np.diff(found)), len(found) - 1)
    return found[ends], ends + 1, truth[order].cumsum()[ends]


def roc_auc(scores: Scores, truth: Truth) -> float:
    """Return how often an image of the class scores above one that is none, a tie counting half (Hanley, McNeil 1982).

    There are images of both kinds.
    """
    _, at, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[at]  # of equal scores their mean, from 1
    positive = int(truth.sum())
    above = float(ranks[truth.astype(bool)].sum()) - positive * (positive + 1) / 2
    return above / (positive * (len(truth) - positive))
