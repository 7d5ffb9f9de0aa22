"""Which kind of segmenter is trained where nobody says it: by the model, the run that it begins with, or the data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from cvjobs.evaluation.ground_truth import coco, folder_files, yolo
from cvjobs.training.data import box_labels, mask_labels

Kind = Literal["semantic", "instance"]
_OF_OBJECTS = "maskrcnn"  # how the names of torchvision's models for objects begin


def of(data: str, model: str | None, learnt: str | None) -> Kind:
    """Return the kind; a folder with masks is for a semantic one, polygons are for objects.

    Args:
        data: What is trained on.
        model: Its name, None where none is given.
        learnt: The task of the run that it begins with, None without one.
    """
    if model or learnt:
        objects = (model or "").rpartition("/")[2].startswith(_OF_OBJECTS) or (not model and learnt == "instance")
        return "instance" if objects else "semantic"
    path = Path(os.path.expanduser(data))
    if path.is_file():
        return "instance" if coco.fits(path) else "semantic"
    if not path.is_dir() or folder_files.named(path, mask_labels.MASKS):
        return "semantic"
    return "instance" if box_labels.coco_files(path) or yolo.fits(path) else "semantic"
