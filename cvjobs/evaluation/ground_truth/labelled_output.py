"""Labels as another model said them: the output of ``cvjobs classify``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cvjobs.dataset import contents
from cvjobs.dataset.snapshot_reader import open_newest
from cvjobs.evaluation.ground_truth.types import BadTruth, Complaint, LabelTruth, refuse
from cvjobs.storage.local_store import LocalStore


def fits(path: Path) -> bool:
    """Return whether a place is an output."""
    return path.is_dir() and contents.RESULTS in contents.of(LocalStore(str(path)))


def read(path: Path, masks: bool, names: Sequence[str], bad: Complaint = refuse) -> LabelTruth:  # noqa: ARG001 - the output has names
    """Return the best label of each image of the newest snapshot; raises BadTruth for an output of another command."""
    reader = open_newest(LocalStore(str(path)), "truth", "`cvjobs classify`")
    if reader.task != "classify":
        raise BadTruth(path, None, "is no output of `cvjobs classify`: name one, or another truth")
    images: list[str] = []
    labels: list[str] = []
    for table in reader.tables(["path", "label"]):
        images += table["path"].to_pylist()
        labels += table["label"].to_pylist()
    return LabelTruth(format="labelled_output", names=images, labels=labels)
