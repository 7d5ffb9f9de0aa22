"""A table (CSV, Parquet, JSON lines) with a row a box: ``path``, ``label``, ``xmin``, ``ymin``, ``xmax``, ``ymax``.

Corners are in pixels. A row with a path alone is an image on which there is nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvjobs.common import class_labels
from cvjobs.common.categories import Category
from cvjobs.evaluation import label_tables
from cvjobs.evaluation.ground_truth.types import BadTruth, Complaint, ObjectTruth, refuse
from cvjobs.evaluation.metrics.objects import Truths

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FARTHEST = 1e9  # pixels


def fits(path: Path) -> bool:
    """Return whether a place looks like such a file: a table that has these columns."""
    if not label_tables.fits(path):
        return False
    try:
        table = label_tables.read(path)
    except BadTruth:
        return False
    return bool(table.path_column) and {"label", *CORNERS} <= set(table.columns)


def read(path: Path, masks: bool, names: Sequence[str], bad: Complaint = refuse) -> ObjectTruth:  # noqa: ARG001 - it has boxes alone
    """Return the objects of a file; classes are in the order of ``names``, or of the alphabet. Raises BadTruth."""
    table = label_tables.read(path)
    images: dict[str, int] = {}
    rows: list[tuple[int, str, list[float]]] = []
    for line, row in table.rows:
        name = class_labels.text(row.get(table.path_column)).strip()
        if not name:
            bad(BadTruth(path, line, "has no path"))
            continue
        at = images.setdefault(name, len(images))
        try:
            label = table.label(line, row.get("label"))
            if label or any(_filled(row.get(side)) for side in CORNERS):
                rows.append((at, label, _corners(path, line, label, row, names)))
        except BadTruth as error:
            bad(error)
    known = list(names) or sorted({label for _, label, _ in rows})
    position = {name: at for at, name in enumerate(known)}
    corners = np.array([own for _, _, own in rows], np.float64).reshape(-1, 4)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    nothing = np.zeros(len(rows), np.bool_)
    return ObjectTruth(
        format="box_table",
        names=list(images),
        categories=[Category(at + 1, name) for at, name in enumerate(known)],
        objects=Truths(
            image=np.array([at for at, _, _ in rows], np.int64),
            category=np.array([position[label] for _, label, _ in rows], np.int64),
            boxes=boxes,
            area=boxes[:, 2] * boxes[:, 3],
            crowd=nothing,
            ignored=nothing,
            unnumbered=nothing,
        ),
    )


def _filled(cell: Any) -> bool:
    return cell is not None and class_labels.text(cell).strip() != ""


def _corners(path: Path, line: int, label: str, row: dict[str, Any], names: Sequence[str]) -> list[float]:
    """Return the corners of a row's box."""
    if not label:
        raise BadTruth(path, line, "has a box without a label", "box_bad")
    if names and label not in names:
        raise BadTruth(path, line, f"has an object {label!r}, which --labels does not name", "class_unknown")
    try:
        corners = [float(row[side]) for side in CORNERS]
    except (KeyError, TypeError, ValueError):
        corners = [np.nan]
    if not (np.abs(corners) < FARTHEST).all() or corners[2] < corners[0] or corners[3] < corners[1]:
        raise BadTruth(path, line, "has no box with xmin <= xmax and ymin <= ymax", "box_bad")
    return corners
