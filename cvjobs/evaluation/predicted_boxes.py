"""Predictions of other tools as a table of boxes, one a row: any usual names of columns, pixels or shares of the image.

A row without a box is an image on which nothing was found.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from cvjobs.common import class_labels
from cvjobs.common.categories import Category
from cvjobs.evaluation import column_names
from cvjobs.evaluation.column_names import BoxColumns, Kind
from cvjobs.evaluation.ground_truth import records
from cvjobs.evaluation.ground_truth.coco import FARTHEST
from cvjobs.evaluation.ground_truth.types import BadTruth
from cvjobs.evaluation.label_tables import LabelTable
from cvjobs.evaluation.metrics.objects import Detections, Floats, Id
from cvjobs.evaluation.predictions import ClassNumbers, ResultsFile

HEIGHTS, WIDTHS = (tuple(f"{of}{side}" for of in ("image", "img", "")) for side in ("height", "width"))
MOST = 1 << 31  # of a class number
FAR = 2.0  # shares of the image
_BETWEEN = re.compile(r"[\s,;\[\]()]+")


def read(table: LabelTable, columns: BoxColumns, names: Sequence[str]) -> ResultsFile:
    """Return the boxes of a table; ``names`` are those of classes that are numbers. Raises BadTruth."""
    paths = column_names.first(table.columns, column_names.IMAGES)
    image_column = paths or column_names.first(table.columns, column_names.IDS)
    score_column = column_names.first(table.columns, column_names.SCORES)
    for column, what in ((image_column, "the images, such as path"), (score_column, "the scores, such as score")):
        if not column:
            raise BadTruth(table.path, None, f"has boxes and no column of {what}: add it")
    sides = [
        column_names.first([name for name in table.columns if name not in columns.names], choices)
        for choices in (WIDTHS, HEIGHTS)
    ]
    images: dict[str, int] = {}
    sizes: list[list[float]] = []
    kept: list[tuple[int, dict[str, Any]]] = []
    of: list[int] = []
    values: list[list[float]] = []
    scores: list[float] = []
    for line, row in table.rows:
        image = class_labels.text(row.get(image_column)).strip()
        if not image:
            raise BadTruth(table.path, line, f"has no {image_column}")
        at = images.setdefault(image, len(images))
        if at == len(sizes):
            sizes.append([_positive(row.get(side)) for side in sides])
        cells = _cells(row, columns)
        if not cells:
            continue
        of.append(at)
        values.append(_numbers(table, line, cells, columns))
        scores.append(_score(table, line, row.get(score_column)))
        kept.append((line, row))
    category, categories, numbered = _classes(table, kept, names)
    given = np.array(values, np.float64).reshape(-1, 4)
    if not columns.shares and len(given) and (np.abs(given) <= 1).all():
        raise BadTruth(
            table.path,
            None,
            f"has no value over 1 in {', '.join(columns.names)}, which are pixels: call shares of the image "
            f"{', '.join(f'{name}_norm' for name in columns.names)}",
        )
    boxes = _boxes(given, columns.kind)
    if (boxes[:, 2:] < 0).any():
        line = kept[int(np.argmax((boxes[:, 2:] < 0).any(axis=1)))][0]
        raise BadTruth(table.path, line, f"has a box whose width or height is less than 0 ({columns})")
    notes = [str(columns)]
    if numbered and not categories:
        notes.append("classes of the predictions are numbers, which are the ids of the truth's")
    return ResultsFile(
        place=str(table.path),
        task="detect",
        categories=categories,
        rows=list(images) if paths else [],
        notes=notes,
        found=Detections(
            image=np.array(of, np.int64),
            category=np.array(category, np.int64),
            boxes=boxes,
            area=boxes[:, 2] * boxes[:, 3],
            score=np.array(scores, np.float64),
        ),
        numbers=_ids(list(images)),
        known_sizes=np.array(sizes, np.float64).reshape(-1, 2),
        relative=columns.shares,
        numbered=numbered,
        whole=False,
    )


def _ids(images: Sequence[str]) -> list[Id]:
    """Return ids as those of COCO's files: whole numbers where they are all different, and else text."""
    found = [records.identity(image) or image for image in images]
    return found if len(set(found)) == len(found) else list(images)


def _cells(row: dict[str, Any], columns: BoxColumns) -> list[Any]:
    """Return the four cells of a box, none where a row has no box."""
    cells: Any = [row.get(name) for name in columns.names]
    if len(cells) == 1:
        cell = cells[0]
        cells = [part for part in _BETWEEN.split(cell) if part] if isinstance(cell, str) else cell
        cells = list(cells) if isinstance(cells, (list, tuple)) else [] if cells is None else [cells]
    return [] if all(cell in (None, "") or (isinstance(cell, float) and math.isnan(cell)) for cell in cells) else cells


def _numbers(table: LabelTable, line: int, cells: list[Any], columns: BoxColumns) -> list[float]:
    try:
        numbers = [float(cell) for cell in cells]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    if len(numbers) != 4 or not all(abs(number) < FARTHEST for number in numbers):
        raise BadTruth(table.path, line, f"has a box without four numbers ({columns})")
    if columns.shares and max(map(abs, numbers)) > FAR:
        raise BadTruth(table.path, line, f"has values over 1 in {', '.join(columns.names)}, which are shares")
    return numbers


def _score(table: LabelTable, line: int, cell: Any) -> float:
    try:
        score = float(cell)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not math.isfinite(score):
        raise BadTruth(table.path, line, "has a box without a score that is a number")
    return score


def _positive(cell: Any) -> float:
    """Return a side of an image in pixels, 0 where it is none."""
    try:
        side = float(cell)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return side if 0 < side < FARTHEST else 0.0


def _boxes(given: Floats, kind: Kind) -> Floats:
    """Return x, y, width and height of boxes (n, 4)."""
    if kind == "corners":
        return np.concatenate([given[:, :2], given[:, 2:] - given[:, :2]], axis=1)
    if kind == "centre and size":
        return np.concatenate([given[:, :2] - given[:, 2:] / 2, given[:, 2:]], axis=1)
    return given


def _classes(
    table: LabelTable, rows: Sequence[tuple[int, dict[str, Any]]], names: Sequence[str]
) -> tuple[list[int], list[Category], ClassNumbers]:
    """Return the class of each box, the classes by name, and whether they are numbers; raises BadTruth."""
    columns = [column_names.first(table.columns, choices) for choices in (column_names.NAMES, column_names.NUMBERS)]
    if not any(columns):
        raise BadTruth(table.path, None, "has boxes and no column of their classes, such as label: add it")
    for column in dict.fromkeys(filter(None, columns)):
        labels = [table.label(line, row.get(column)) for line, row in rows]
        if "" in labels:
            raise BadTruth(table.path, rows[labels.index("")][0], f"has a box without a class in {column}")
        if not all(label.isascii() and label.isdigit() for label in labels):
            known = {name: at for at, name in enumerate(sorted(set(labels)))}
            return [known[label] for label in labels], [Category(at, name) for name, at in known.items()], ""
    numbers = [int(label) for label in labels]
    limit = len(names) or MOST
    if numbers and max(numbers) >= limit:
        at = next(at for at, number in enumerate(numbers) if number >= limit)
        known_to = f"there are names for {limit:,}" if names else f"class numbers are below {MOST:,}"
        raise BadTruth(table.path, rows[at][0], f"has the class {numbers[at]}, and {known_to}")
    if names:
        return numbers, [Category(at, name) for at, name in enumerate(names)], ""
    return numbers, [Category(number, str(number)) for number in sorted(set(numbers))], "ids"
