"""A confusion matrix, of pixels or of images, and the numbers that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvjobs.evaluation.metrics.objects import Floats, Ints

UNDEFINED = -1.0


@dataclass(frozen=True)
class Confusion:
    """``counts`` (K, K + 1): rows are the truth, columns what was predicted, the last one no class of the truth."""

    counts: Ints

    @classmethod
    def empty(cls, classes: int) -> Confusion:
        """Return the matrix of nothing."""
        return cls(np.zeros((classes, classes + 1), np.int64))

    def add(self, truth: Ints, predicted: Ints) -> None:
        """Count pairs of classes (n,), the truth in 0..K-1 and what was predicted in 0..K."""
        rows, columns = self.counts.shape
        self.counts[:] += np.bincount(truth * columns + predicted, minlength=rows * columns).reshape(rows, columns)

    @property
    def truths(self) -> Ints:
        """How many there are of each class (K,)."""
        return np.asarray(self.counts.sum(axis=1))

    @property
    def predictions(self) -> Ints:
        """How many of each class (K,) were predicted."""
        return np.asarray(self.counts.sum(axis=0)[:-1])

    @property
    def right(self) -> Ints:
        """How many of each class (K,) were found."""
        return np.asarray(np.diagonal(self.counts))

    @property
    def accuracy(self) -> float:
        """The share of all that is right."""
        whole = int(self.counts.sum())
        return int(self.right.sum()) / whole if whole else UNDEFINED

    @property
    def recall(self) -> Floats:
        """The share of each class (K,) that was found; UNDEFINED where there is none."""
        return _share(self.right, self.truths)

    @property
    def precision(self) -> Floats:
        """The share of the predictions of each class (K,) that is right; UNDEFINED where there is none."""
        return _share(self.right, self.predictions)

    @property
    def iou(self) -> Floats:
        """Intersection over union of each class (K,); UNDEFINED where it is neither there nor predicted."""
        return _share(self.right, self.truths + self.predictions - self.right)


def mean(values: Floats) -> float:
    """Return the mean of what is defined."""
    defined = values[values != UNDEFINED]
    return float(defined.mean()) if defined.size else UNDEFINED


def _share(part: Ints, whole: Ints) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(len(whole), UNDEFINED), where=whole > 0))
