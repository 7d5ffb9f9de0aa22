"""Predictions as YOLO's txt files, one an image: lines of a class number, a box or polygon in shares, and a score.

That is what Ultralytics' ``save_txt`` writes with ``save_conf``. An image without a file has nothing on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cvjobs.common.categories import Category
from cvjobs.evaluation.ground_truth import folder_files, yolo, yolo_lines
from cvjobs.evaluation.metrics.objects import Detections
from cvjobs.evaluation.predictions import ResultsFile


def fits(path: Path) -> bool:
    """Return whether a place is a folder with txt files of boxes, or of nothing where it has no PNG files either."""
    return path.is_dir() and (
        any(map(yolo_lines.hold_boxes, _texts(path)))
        or (not folder_files.any_below(path, ".png") and any(map(yolo_lines.hold_labels, _texts(path))))
    )


def _texts(path: Path) -> list[Path]:
    """Return the texts in the folder ``labels`` of a place, or in it where it has none."""
    found = folder_files.below(folder(path), ".txt")
    return [file for file in found if file.name.lower() not in yolo_lines.NO_LABELS]


def folder(path: Path) -> Path:
    """Return where the labels of a place are."""
    return path / yolo.LABELS if (path / yolo.LABELS).is_dir() else path


def read(path: Path, names: Sequence[str]) -> ResultsFile:
    """Return the boxes of a folder in shares of their images; raises BadTruth that names the line."""
    place = folder(path)
    known, pose = yolo.class_names(path, names), yolo_lines.points(place)
    holding = {file: yolo_lines.hold_labels(file) for file in _texts(path)}
    files = [file for file, labels in holding.items() if labels]
    rows = [(at, one) for at, file in enumerate(files) for one in yolo_lines.read(file, len(known), pose, scored=True)]
    boxes = np.array([one.box for _, one in rows], np.float64).reshape(-1, 4)
    return ResultsFile(
        place=str(path),
        task="detect",
        categories=[Category(at, name or str(at)) for at, name in enumerate(known)],
        rows=[folder_files.name_of(file, place) for file in files],
        notes=yolo.left_out([file.name for file, labels in holding.items() if not labels]),
        found=Detections(
            image=np.array([at for at, _ in rows], np.int64),
            category=np.array([one.number for _, one in rows], np.int64),
            boxes=boxes,
            area=boxes[:, 2] * boxes[:, 3],
            score=np.array([one.score for _, one in rows], np.float64),
        ),
        numbers=list(range(len(files))),
        relative=True,
        numbered="" if known else "places",
    )
