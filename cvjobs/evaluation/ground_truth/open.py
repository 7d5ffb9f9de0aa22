"""Reading a truth in whichever format it is in, of those that fit the task."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cvjobs.common import plugins
from cvjobs.common.errors import WrongUse
from cvjobs.evaluation.ground_truth.types import Complaint, GroundTruth, refuse
from cvjobs.storage.remote_files import is_remote

FORMATS = {
    "detect": ("coco", "openimages", "yolo", "voc", "box_table"),
    "instance": ("coco", "openimages", "yolo", "voc"),
    "semantic": ("panoptic", "coco", "masks"),
    "classify": ("table", "labelled_output", "folders"),
}
MASKED = ("instance", "semantic")
KNOWN = {
    "detect": "COCO JSON (FILE.json), a folder of VOC XML or of YOLO txt files, OpenImages' CSV, or a table with the "
    "columns path, label, xmin, ymin, xmax and ymax",
    "instance": "COCO JSON (FILE.json), a folder of VOC XML or of YOLO txt files, or OpenImages' CSV",
    "semantic": "a folder of PNG masks whose pixels are class ids, or COCO JSON (FILE.json) with masks",
    "classify": "a folder with one subfolder of images for each class, or a table (.csv, .parquet, .jsonl) with "
    "the columns path and label",
}


class TruthFormat(Protocol):
    """A module of this package that reads a format."""

    def fits(self, path: Path) -> bool:
        """Return whether a place is of this format, by a cheap look."""

    def read(self, path: Path, masks: bool, names: Sequence[str], bad: Complaint = refuse) -> GroundTruth:
        """Return the truth, with masks where asked for; ``names`` are those of the classes, in their order.

        ``bad`` is told of each file, line and record that makes no sense.
        """


def fits(place: str, task: str) -> bool:
    """Return whether a place looks like a truth for predictions of a task."""
    path = Path(os.path.expanduser(place))
    return path.exists() and any(_format(name, task).fits(path) for name in FORMATS[task])


def _format(name: str, task: str) -> TruthFormat:
    found: TruthFormat = plugins.load("cvjobs.evaluation.ground_truth", "truth format", name, FORMATS[task])
    return found


def read(place: str, task: str, names: Sequence[str] = ()) -> GroundTruth:
    """Return the truth for predictions of a task; raises WrongUse where no format fits, or more than one does."""
    path = Path(os.path.expanduser(place))
    if is_remote(place.encode()):
        raise WrongUse(f"The truth {place} must be on this machine: copy it to a folder first.")
    if not path.exists():
        raise WrongUse(f"There is no truth at {place}: name {KNOWN[task]}.")
    for name in FORMATS[task]:
        format_ = _format(name, task)
        if format_.fits(path):
            truth = format_.read(path, task in MASKED, names)
            if not len(truth):
                raise WrongUse(f"The truth {place} knows no image: name {KNOWN[task]}.")
            return truth
    raise WrongUse(of_yolo(path) or f"{place} is no truth for these predictions: name {KNOWN[task]}.")


def of_yolo(path: Path) -> str:
    """Return what to name in place of the YAML that describes a YOLO data set; empty for other files."""
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return ""
    return f"{path} is no truth: name its folder, {path.parent}, where the txt files of YOLO and the names are found."
