"""What a training is about to see, counted before its first step: classes in each split, doubles, what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cvjobs.common.formatting import counted
from cvjobs.training.data import labels, omissions
from cvjobs.training.data.labels import Double, LabelledImages, Leak

if TYPE_CHECKING:
    from cvjobs.training.plan import SplitPart  # which imports torch, and a look at data does without

CLASSES = 200
OPEN = 24  # rows of the table of classes that are shown without a click


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """A class: its images in each split, and those to train on as a share of the largest class's."""

    name: str
    counts: list[int]
    share: float


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The images of a training that could be decoded.

    ``images`` and ``counts`` are by split, the latter of each class; ``leaks`` are the images of val and test that are
    in train, too, and ``doubles`` those of train that are there before, both by their content. ``left_out`` is the
    record of ``omissions``.
    """

    classes: tuple[str, ...]
    images: Mapping[str, int]
    counts: Mapping[str, NDArray[np.int64]]
    failed: int
    unlabelled: int
    leaks: Sequence[Leak]
    doubles: Sequence[Double]
    left_out: Mapping[str, Any] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What was left out by reason, and what else is to be said of the images."""
        return [line.strip() for line in omissions.lines(self.left_out)]

    @property
    def contradictions(self) -> list[Double]:
        """The images of train that are there before with other labels."""
        return [double for double in self.doubles if double[2]]

    def without(self, split: str) -> list[str]:
        """Return the classes of which a split has no image."""
        return [self.classes[number] for number in np.flatnonzero(self.counts[split] == 0).tolist()]

    @property
    def rows(self) -> list[ClassRow]:
        """The classes with the fewest images to train on, the rarest first; at most ``CLASSES`` of them."""
        train = self.counts["train"]
        most = max(int(train.max(initial=0)), 1)
        order = np.argsort(train, kind="stable")[:CLASSES].tolist()
        return [
            ClassRow(
                name=self.classes[number],
                counts=[int(own[number]) for own in self.counts.values()],
                share=float(train[number] / most),
            )
            for number in order
        ]

    @property
    def imbalance(self) -> float:
        """How many times the images to train on of the rarest class, of those with any, the most frequent one has."""
        some = self.counts["train"][self.counts["train"] > 0]
        return float(some.max() / some.min()) if len(some) else 1.0

    def __str__(self) -> str:
        parts = [", ".join(f"{count:,} to {name}" for name, count in self.images.items())]
        if self.classes:
            train = self.counts["train"]
            least, most = int(train.min()), int(train.max())
            each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
            images = "image" if most == 1 else "images"
            parts.append(f"{counted(len(self.classes), 'classes')}, {each} training {images} each")
        notes = (
            (self.failed, "failed"),
            (self.unlabelled, "without a label or split" if self.classes else "of no split"),
            (len(self.leaks), "leaked into train"),
            (len(self.contradictions), "twice in train with different labels"),
        )
        if said := ", ".join(f"{count:,} {what}" for count, what in notes if count):
            parts.append(said)
        return "; ".join(parts)


def survey(
    labelled: LabelledImages,
    parts: Mapping[str, SplitPart],
    leaks: Sequence[Leak],
    doubles: Sequence[Double],
    left_out: Mapping[str, Any] | None = None,
) -> Survey:
    """Return the survey of the images that could be decoded."""
    return Survey(
        classes=labelled.classes,
        images={name: len(part) for name, part in parts.items()},
        counts={name: labels.counts(part.labels, len(labelled.classes)) for name, part in parts.items()},
        failed=labelled.failed(parts),
        unlabelled=labelled.unlabelled,
        leaks=leaks,
        doubles=doubles,
        left_out=left_out or {},
    )
