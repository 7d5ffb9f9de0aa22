"""Predictions as a folder of PNG masks, one an image, whose pixels are class ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cvjobs.common.errors import CvjobsError
from cvjobs.evaluation import void
from cvjobs.evaluation.ground_truth import folder_files, masks
from cvjobs.evaluation.ground_truth.types import BadTruth
from cvjobs.evaluation.metrics.objects import Ints
from cvjobs.evaluation.predictions import Predictions

A_GROUP = 32  # masks in memory


@dataclass(frozen=True, kw_only=True)
class MaskFolder(Predictions):
    """Masks in files, one for each of ``rows``."""

    files: Sequence[Path]

    def class_maps(self, rows: Ints) -> Iterator[tuple[Ints, list[bytes]]]:
        """Yield some rows (sorted), group by group, with their class maps as PNGs; raises BadTruth."""
        for first in range(0, len(rows), A_GROUP):
            some = rows[first : first + A_GROUP]
            yield some, [folder_files.content(self.files[row]) for row in some.tolist()]

    def is_black_and_white(self) -> bool:
        """Return whether the masks hold 255 and else nothing but 0: then it is the class 1."""
        met = void.values(lambda at: masks.load(self.files[at]), len(self.files))
        return void.USUAL in met and met <= {0, void.USUAL}

    def broken(self, row: int, why: str) -> CvjobsError:
        """Return what to raise for a file that holds no class map."""
        return BadTruth(self.files[row], None, why)


def fits(path: Path) -> bool:
    """Return whether a place is a folder with PNG files."""
    return masks.fits(path)


def read(path: Path) -> MaskFolder:
    """Return the masks of a folder, unopened; classes have names where the folder, or one above it, has a list."""
    found = masks.read(path, True, ())
    return MaskFolder(
        place=str(path), task="semantic", categories=found.categories, rows=list(found.names), files=found.files
    )
