"""How alike the boxes are that a detector and its file find in one picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PIXELS = 0.5  # by which the corners of one box may differ
SCORE = 1e-3
UNLIKE = 0.01  # the share of boxes that may be others: where two are as good, or overlap by just what NMS allows
_SHARE = 2  # of the rows the better half: what is in the last ones hangs on all before


@dataclass(frozen=True)
class ListedBoxes:
    """Boxes (N, 4) in pixels, their classes (N,) and scores (N,), the best first; a row of score 0 has no box."""

    boxes: Tensor
    labels: Tensor
    scores: Tensor

    def best(self) -> ListedBoxes:
        """Return the better half of the rows."""
        rows = -(-int((self.scores > 0).sum()) // _SHARE)
        return ListedBoxes(self.boxes[:rows], self.labels[:rows], self.scores[:rows])


def compared(one: ListedBoxes, other: ListedBoxes) -> tuple[float, float]:
    """Return by how much scores of the same boxes differ at most, and the share of boxes that only one of the two has.

    Boxes are the same by ``PIXELS``, ``SCORE`` and their class.
    """
    most, alone, every = 0.0, 0, 0
    for these, those in ((one.best(), other), (other.best(), one)):
        apart = (these.boxes[:, None] - those.boxes[None]).abs().amax(2)
        differs = (these.scores[:, None] - those.scores[None]).abs()
        same = (these.labels[:, None] == those.labels[None]) & (apart <= PIXELS) & (differs <= SCORE)
        found = same.any(1)
        if found.any():
            most = max(most, float(torch.where(same, differs, torch.inf).amin(1)[found].max()))
        alone, every = alone + int((~found).sum()), every + len(found)
    return most, alone / max(every, 1)
