"""Connected components of numbered things: a union-find whose steps are whole arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class Components:
    """Numbers 0 to n-1, each a component of its own until ``unite`` is told otherwise."""

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count, dtype=np.int64)

    def unite(self, left: Ints, right: Ints) -> None:
        """Join the components of left[i] and right[i], for every i."""
        while len(left):
            left, right = self.firsts(left), self.firsts(right)
            apart = left != right
            left, right = left[apart], right[apart]
            # Of several edges at one root the lowest wins now; the others are looked at again.
            np.minimum.at(self._parent, np.maximum(left, right), np.minimum(left, right))

    def firsts(self, numbers: Ints) -> Ints:
        """Return the lowest number in the component of each."""
        parent = self._parent
        at = parent[numbers]
        while not np.array_equal(above := parent[at], at):
            at = above
        parent[numbers] = at
        return at

    def copy(self) -> Components:
        """Return the same components, to be joined further."""
        made = Components(0)
        made._parent = self._parent.copy()
        return made

    def all(self) -> Ints:
        """Return the lowest number in the component of every number, int64 (n,)."""
        return self.firsts(np.arange(len(self._parent), dtype=np.int64))
