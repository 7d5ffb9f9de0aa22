"""Predictions in any form: an output of ours, or files that this or another tool wrote."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cvjobs.common.errors import WrongUse
from cvjobs.dataset import contents
from cvjobs.evaluation import predicted_masks, predicted_tables, predicted_yolo
from cvjobs.evaluation.ground_truth import open as ground_truth_open
from cvjobs.evaluation.predicted_masks import MaskFolder
from cvjobs.evaluation.predictions import EvaluatedOutput, LabelFile, ResultsFile, open_predictions
from cvjobs.storage.local_store import LocalStore
from cvjobs.storage.storage_options import Options

BOXES = "call them xmin, ymin, xmax, ymax or x, y, width, height, or xmin_norm and so on for shares of the image"
Given = EvaluatedOutput | ResultsFile | LabelFile | MaskFolder


def read(place: str, truth: str, names: Sequence[str], options: Options) -> Given:
    """Return predictions; raises WrongUse where a place holds none.

    Args:
        place: the folder or file.
        truth: the truth to compare with: a table that has labels and boxes is read for one of them.
        names: the names of classes that are numbers.
        options: for an output in a bucket.
    """
    path = Path(os.path.expanduser(place))
    if predicted_tables.fits(path):
        there = os.path.exists(os.path.expanduser(truth))  # what is missing is said by who reads it
        boxed = not there or ground_truth_open.fits(truth, "detect")
        found = predicted_tables.read(path, names, boxed=boxed)
        if isinstance(found, LabelFile) and boxed and there and not ground_truth_open.fits(truth, "classify"):
            raise WrongUse(f"{path} has no columns of boxes, which the truth has: {BOXES}.")
        return found
    if path.is_dir() and not contents.of(LocalStore(str(path))) - {contents.OTHER}:
        if predicted_yolo.fits(path):
            return predicted_yolo.read(path, names)
        if predicted_masks.fits(path):
            return predicted_masks.read(path)
    return open_predictions(place, options)
