"""What a truth can be: objects in images, a class for each pixel, or a label for each image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import visible
from cvjobs.evaluation.metrics.objects import Id, Truths
from cvjobs.sources.left_out import NamedCount

MAX_PIXELS = 400_000_000  # of one mask
NOTHING = 65535  # the value of painted pixels that do not count


class BadTruth(WrongUse):
    """A file of the truth is not what its format asks for.

    ``kind`` is which of the things that ``cvjobs check`` counts it is; ``record`` is the number of the annotation, from
    1, where that is known.
    """

    def __init__(self, file: Path, line: int | None, what: str, kind: str = "truth_unreadable") -> None:
        at = f", line {line}" if line else ""
        super().__init__(f"{visible(str(file))}{at} {visible(what)}.")
        self.file, self.line, self.what, self.kind = file, line, what, kind
        self.record: int | None = None


# What becomes of a file, a line or a record that makes no sense: it is left out where this returns.
Complaint = Callable[[BadTruth], None]


def refuse(error: BadTruth) -> None:
    """Raise the error: what makes no sense ends an evaluation."""
    raise error


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """The images that a truth knows, by name relative to where it starts.

    With ``endings`` false the names come without ``.jpg`` and the like. ``notes`` are sentences on what was left out,
    ``left_out`` is what the listing of its images left out.
    """

    format: str
    names: Sequence[str]
    endings: bool = True
    notes: Sequence[str] = ()
    left_out: Mapping[str, NamedCount] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, kw_only=True)
class ObjectTruth(GroundTruth):
    """Objects in images; ``named`` tells whether the categories have names beside their ids.

    ``numbers`` are the ids of the images and ``sizes`` their (height, width), where they have any. ``relative`` boxes
    are in shares of their image. ``measure`` reads the (height, width) of an image from its file, by its place, (0, 0)
    where there is none. ``aliases`` are other names of the categories, which predictions may have. ``outlines`` are
    polygons of the objects in shares of their image, x and y of each point in turn, empty where one has none.
    """

    objects: Truths
    categories: list[Category]
    named: bool = True
    numbers: Sequence[Id] = ()
    sizes: Sequence[tuple[int, int]] = ()
    relative: bool = False
    measure: Callable[[int], tuple[int, int]] | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    outlines: Sequence[Sequence[float]] = ()


@dataclass(frozen=True, kw_only=True)
class PixelTruth(GroundTruth):
    """A class for each pixel of each image; ``categories`` are those that a file of names gives.

    Without any classes fit by number, and ``beside`` are the names that a file ``names_file`` near the masks has for
    the numbers. ``named`` tells whether the truth has names of its own.
    ``load`` returns the values in an image (height, width), uint8 or uint16, by its place in ``files``: ids of classes,
    of which one may not count. What is ``painted`` holds places in ``categories``, and NOTHING for what does not count.
    """

    files: Sequence[Path]
    load: Callable[[int], npt.NDArray[Any]]
    categories: list[Category]
    named: bool = True
    beside: Sequence[Category] = ()
    names_file: Path | None = None
    painted: bool = False


@dataclass(frozen=True, kw_only=True)
class LabelTruth(GroundTruth):
    """A label for each image."""

    labels: Sequence[str]
