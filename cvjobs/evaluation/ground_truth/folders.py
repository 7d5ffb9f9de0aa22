"""Labels by folder: the first folder of an image's path is its class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cvjobs.common import class_labels
from cvjobs.evaluation.ground_truth.types import BadTruth, Complaint, LabelTruth, refuse
from cvjobs.sources import reasons
from cvjobs.sources.listing import list_source


def fits(path: Path) -> bool:
    """Return whether a place has folders."""
    return path.is_dir() and any(entry.is_dir() for entry in path.iterdir())


def read(path: Path, masks: bool, names: Sequence[str], bad: Complaint = refuse) -> LabelTruth:  # noqa: ARG001 - folders have names
    """Return the label of each image in a folder; raises BadTruth where one is in no subfolder."""
    listing = list_source(str(path), links=True)
    paths = []
    for image in listing.images["path"].to_pylist():
        if "/" in image:
            paths.append(image)
        else:
            bad(BadTruth(path / image, None, "is in no folder of a class: give each class a folder"))
    parts = [image.split("/") for image in paths]
    # Folders of splits, as those that `cvjobs train` takes, hold the folders of the classes.
    at = int(all(class_labels.split(class_labels.clean(own[0])) and len(own) > 2 for own in parts))
    labels = [class_labels.clean(own[at]) for own in parts]
    return LabelTruth(
        format="folders", names=paths, labels=labels, left_out=reasons.of(listing), notes=reasons.followed(listing)
    )
