"""The masks of the objects in images, as a training is given them: run lengths at the size that the truth has."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cvjobs.evaluation.metrics.objects import Ints, Rle


@dataclass(frozen=True, kw_only=True)
class InstanceTruth:
    """The masks of images, those of one behind those of the other, in the order of their ``ImageObjects``.

    ``rows`` is which image a path is; ``ends`` (n + 1,) bound the masks of each.
    """

    rows: Mapping[str, int] = field(repr=False)
    ends: Ints = field(repr=False)
    masks: Sequence[Rle] = field(repr=False)

    @classmethod
    def of(cls, paths: Sequence[str], ends: Ints, masks: Sequence[Rle]) -> InstanceTruth:
        """Return those of images with these paths."""
        return cls(rows={path: row for row, path in enumerate(paths)}, ends=ends, masks=masks)

    def image(self, path: str) -> Sequence[Rle]:
        """Return the masks of an image."""
        row = self.rows[path]
        return self.masks[int(self.ends[row]) : int(self.ends[row + 1])]

    @cached_property
    def digest(self) -> str:
        """What tells whether they are the same masks."""
        hasher = hashlib.sha256(self.ends.tobytes())
        for mask in self.masks:
            hasher.update(b"%d %d " % tuple(mask["size"]) + mask["counts"] + b"\n")
        return hasher.hexdigest()
