"""What is taken for what, pixels or images or objects, as the pairs that occur, and the numbers that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvjobs.evaluation.metrics.objects import Floats, Ints

UNDEFINED = -1.0
DENSE = 1 << 20  # cells of a matrix that is counted at once; in a larger one most are empty


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix (rows, columns) of which only what occurs is held: memory follows the pairs, not the classes.

    Rows are the truth, columns what was predicted, the last one no class of the truth. ``cells`` (n,) are
    row * columns + column of what occurs, ascending, and ``counts`` (n,) how often.
    """

    shape: tuple[int, int]
    cells: Ints
    counts: Ints

    @classmethod
    def of(cls, truth: Ints, predicted: Ints, shape: tuple[int, int]) -> Confusion:
        """Count pairs (n,) of rows and columns of a matrix of that shape."""
        cells = truth * shape[1] + predicted
        if shape[0] * shape[1] > DENSE:
            return cls(shape, *np.unique(cells, return_counts=True))
        counts = np.bincount(cells, minlength=1)
        there = np.flatnonzero(counts)
        return cls(shape, there, counts[there])

    @classmethod
    def total(cls, parts: Sequence[Confusion]) -> Confusion:
        """Return the sum of matrices of one shape, at least one."""
        cells, where = np.unique(np.concatenate([part.cells for part in parts]), return_inverse=True)
        return cls(parts[0].shape, cells, _summed(where, np.concatenate([part.counts for part in parts]), len(cells)))

    def part(self, rows: Ints, columns: Ints) -> Confusion:
        """Return the matrix of some rows and columns, both ascending."""
        places = np.full(self.shape[0], -1), np.full(self.shape[1], -1)
        places[0][rows], places[1][columns] = np.arange(len(rows)), np.arange(len(columns))
        row, column = places[0][self.row], places[1][self.column]
        kept = (row >= 0) & (column >= 0)
        return Confusion((len(rows), len(columns)), (row * len(columns) + column)[kept], self.counts[kept])

    def matrix(self) -> Ints:
        """Return all cells (rows, columns)."""
        counts = np.zeros(self.shape, np.int64)
        counts[self.row, self.column] = self.counts
        return counts

    @property
    def row(self) -> Ints:
        """The truth of each pair (n,)."""
        return self.cells // self.shape[1]

    @property
    def column(self) -> Ints:
        """What was predicted in each pair (n,)."""
        return self.cells % self.shape[1]

    @property
    def truths(self) -> Ints:
        """How many there are of each row (rows,)."""
        return _summed(self.row, self.counts, self.shape[0])

    @property
    def taken(self) -> Ints:
        """How many were taken for each column (columns,)."""
        return _summed(self.column, self.counts, self.shape[1])

    @property
    def predictions(self) -> Ints:
        """How many of each class (columns - 1,) were predicted."""
        return self.taken[:-1]

    @property
    def right(self) -> Ints:
        """How many of each row (rows,) were found."""
        own = self.row == self.column
        return _summed(self.row[own], self.counts[own], self.shape[0])

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
    def f1(self) -> Floats:
        """The harmonic mean of precision and recall of each class (K,); UNDEFINED as ``iou``."""
        return _share(2 * self.right, self.truths + self.predictions)

    @property
    def iou(self) -> Floats:
        """Intersection over union of each class (K,); UNDEFINED where it is neither there nor predicted."""
        return _share(self.right, self.truths + self.predictions - self.right)


def mean(values: Floats) -> float:
    """Return the mean of what is defined."""
    defined = values[values != UNDEFINED]
    return float(defined.mean()) if defined.size else UNDEFINED


def defined(value: float) -> float | None:
    """Return a number as JSON has it: None for what is UNDEFINED."""
    return None if value == UNDEFINED else float(value)


def _summed(where: Ints, counts: Ints, length: int) -> Ints:
    """Return the sums (length,) of counts at their places; exact, as sums of floats are not."""
    sums = np.zeros(length, np.int64)
    np.add.at(sums, where, counts)
    return sums


def _share(part: Ints, whole: Ints) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(len(whole), UNDEFINED), where=whole > 0))
