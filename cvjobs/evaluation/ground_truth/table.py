"""A CSV, Parquet or JSON lines file with the columns ``path`` and ``label``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cvjobs.common import class_labels
from cvjobs.common.paths import comparable
from cvjobs.evaluation import label_tables
from cvjobs.evaluation.ground_truth.types import BadTruth, Complaint, LabelTruth, refuse
from cvjobs.sources import reasons

WITHOUT = "without a label"


def fits(path: Path) -> bool:
    """Return whether a place looks like such a file."""
    return label_tables.fits(path)


def read(path: Path, masks: bool, names: Sequence[str], bad: Complaint = refuse) -> LabelTruth:  # noqa: ARG001 - the file has names
    """Return the label of each path, without rows that have none; raises BadTruth that names the line."""
    table = label_tables.read(path)
    image_column, label_column = table.path_column, table.named("label", "labels")
    if not image_column or not label_column:
        raise BadTruth(path, 1, "must name the columns path and label")
    several = label_column == "labels"
    known: dict[str, tuple[str, str]] = {}
    without: list[tuple[int, str]] = []
    for line, row in table.rows:
        image = class_labels.text(row.get(image_column)).strip()
        label = table.label(line, row.get(label_column), several=several)
        if not image:
            bad(BadTruth(path, line, "has no path"))
            continue
        if not label:
            without.append((line, image))
            continue
        _, first = known.setdefault(comparable(image), (image, label))
        if class_labels.spelling(first) != class_labels.spelling(label):
            bad(BadTruth(path, line, f"gives {image!r} a second label"))
    if without and not known:
        raise BadTruth(path, without[0][0], "has no label, nor has another one")
    images, labels = zip(*known.values(), strict=True) if known else ((), ())
    left_out = reasons.failed((WITHOUT, image) for _, image in without)
    return LabelTruth(format="table", names=images, labels=labels, left_out=left_out)
