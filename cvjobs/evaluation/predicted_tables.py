"""Predictions as tables of images, labels and boxes: exports, and Parquet files of outputs and training runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cvjobs.common import class_labels
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.dataset.schema import DETECTIONS
from cvjobs.evaluation import column_names, label_tables, predicted_boxes
from cvjobs.evaluation.ground_truth import coco_records
from cvjobs.evaluation.ground_truth.coco import FARTHEST
from cvjobs.evaluation.ground_truth.records import EXACT
from cvjobs.evaluation.ground_truth.types import BadTruth
from cvjobs.evaluation.label_tables import LabelTable
from cvjobs.evaluation.metrics.objects import Detections, Rle
from cvjobs.evaluation.predictions import COMMANDS, LabelFile, ResultsFile
from cvjobs.images.decode import MAX_SIDE
from cvjobs.images.masks import rle as image_masks_rle

BOX = ("x0", "y0", "x1", "y1", "score", "category_id")


def fits(path: Path) -> bool:
    """Return whether a place looks like such a table."""
    return label_tables.fits(path)


def read(path: Path, names: Sequence[str] = (), *, boxed: bool = True) -> LabelFile | ResultsFile:
    """Return the labels or the boxes of a table; raises BadTruth that names the line.

    ``names`` are those of classes that are numbers. A table of another tool has boxes where the truth is ``boxed``.
    """
    table = label_tables.read(path)
    if table.path_column and (table.named(DETECTIONS) or set(BOX) <= set(table.columns)):
        return _boxes(table)
    labelled = table.named("predicted", "top", "label_2")  # exports of ours may have any column of a list beside them
    if boxed and not labelled and (columns := column_names.boxes(table.columns)):
        return predicted_boxes.read(table, columns, names)
    return _labels(table)


_GUESS = pa.struct([("label", pa.string()), ("score", pa.float64())])
_LABELS = pa.schema([("label", pa.string()), ("score", pa.float64()), ("top", pa.list_(_GUESS))])


def _labels(table: LabelTable) -> LabelFile:
    """Return labels; a row without one is an image that failed.

    Several rows of one image with different labels, each with a score, are its labels by score.
    """
    image_column = table.path_column or column_names.first(table.columns, (*column_names.IMAGES, *column_names.IDS))
    columns = _columns(table)
    if not image_column or not columns or table.named("pixels"):
        raise WrongUse(
            f"{table.path} has no columns `path` and `label`: name the -o folder of {COMMANDS}, or its export."
        )
    found: dict[str, list[list[dict[str, Any]]]] = {}
    failed = []
    for line, row in table.rows:
        name = class_labels.text(row.get(image_column)).strip()
        guesses = _guesses(table, line, row, columns)
        if guesses:
            found.setdefault(name, []).append(guesses)
        else:
            failed.append(name)
    tops = [(name, top) for name, of in found.items() for top in _ranked(of)]
    names = sorted({guess["label"] for _, top in tops for guess in top})
    values = {
        "label": [top[0]["label"] for _, top in tops],
        "score": [top[0]["score"] for _, top in tops],
        "top": [top for _, top in tops],
    }
    return LabelFile(
        place=str(table.path),
        task="classify",
        categories=[Category(at, name) for at, name in enumerate(names)],
        rows=[name for name, _ in tops],
        failed=failed,
        notes=_notes(table, columns),
        whole=False,
        table=pa.table(values, schema=_LABELS),
    )


def _notes(table: LabelTable, columns: Sequence[tuple[str, str]]) -> list[str]:
    """Return from which columns labels are read, where that is not plain."""
    if table.named("predicted"):
        return []
    if table.named("label"):
        other = column_names.first(table.columns, column_names.PREDICTED)
        return [f"labels are read from label; if {other} is meant, call it predicted"] if other else []
    labels, scores = ([name for name in dict.fromkeys(side) if name] for side in zip(*columns, strict=True))
    return [f"labels are read from {', '.join(labels)}" + (f", scores from {', '.join(scores)}" if scores else "")]


def _ranked(of: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """Return the labels of the rows of one image as one list, best first, where each row has another single label."""
    alone = all(len(top) == 1 for top in of) and len({top[0]["label"] for top in of}) == len(of)
    if not alone or len({top[0]["score"] for top in of}) == 1:  # what repeats, or has no order
        return of
    return [sorted((top[0] for top in of), key=lambda guess: -(guess["score"] or 0.0))]


def _columns(table: LabelTable) -> list[tuple[str, str]]:
    """Return the columns of labels with those of their scores, best first; none where there is no label."""
    columns = table.columns
    score = column_names.first(columns, column_names.SCORES)
    if chosen := table.named("predicted", "label"):  # the label of a training run's predictions is the truth
        ranks = itertools.takewhile(lambda rank: f"label_{rank}" in columns, itertools.count(2))
        more = [(f"label_{rank}", f"score_{rank}") for rank in ranks if chosen == "label"]
        return [(chosen, score), *more]
    for first in (0, 1):
        ranks = itertools.takewhile(lambda rank: column_names.first(columns, (f"label{rank}",)), itertools.count(first))
        found = [[column_names.first(columns, [f"{name}{at}" for name in given]) for given in _RANKED] for at in ranks]
        if found:
            return [(label, score) for label, score in found]
    name = column_names.first(columns, column_names.NAMES)
    return [(name, score)] if name else []


_RANKED = (("label",), column_names.SCORES)


def _guesses(table: LabelTable, line: int, row: dict[str, Any], columns: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return the labels of a row, best first: those of its columns, of its list ``top``, or of lists in one column."""
    pairs: list[tuple[Any, Any]] = [(row.get(label), row.get(score)) for label, score in columns]
    top = row.get("top") if columns[0][0] == "label" else None
    labels, scores = pairs[0]
    if isinstance(top, list) and all(isinstance(guess, dict) for guess in top):
        pairs = [(guess.get("label"), guess.get("score")) for guess in top] or pairs[:1]
    elif isinstance(labels, list) and isinstance(scores, list) and len(labels) == len(scores):
        pairs = list(zip(labels, scores, strict=True))
    guesses = [{"label": table.label(line, label), "score": _score(score)} for label, score in pairs]
    return list(itertools.takewhile(lambda guess: guess["label"], guesses))


def _score(cell: Any) -> float | None:
    """Return a score, None for what is no number."""
    score = _number(cell)
    return score if math.isfinite(score) else None


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _boxes(table: LabelTable) -> ResultsFile:
    """Return boxes, and masks where all have one: lists of them, or one a row, of which an image has several."""
    images: dict[str, int] = {}
    sizes: list[tuple[float, float]] = []
    of: list[int] = []
    values: list[list[float]] = []
    names: dict[int, str] = {}
    masks: list[Rle] = []
    for line, row in table.rows:
        path = class_labels.text(row.get(table.path_column)).strip()
        at = images.setdefault(path, len(images))
        if at == len(sizes):
            sizes.append((_score(row.get("width")) or 0.0, _score(row.get("height")) or 0.0))
        for found in _objects(table, line, row):
            numbers = [_number(found.get(name)) for name in BOX]
            if not all(map(math.isfinite, numbers)):
                raise BadTruth(table.path, line, f"has a box without {', '.join(BOX)} that are numbers")
            if not numbers[5].is_integer() or abs(numbers[5]) >= EXACT:
                raise BadTruth(table.path, line, f"has a category_id that is no whole number below {EXACT:,}")
            if max(map(abs, numbers[:4])) >= FARTHEST or numbers[2] < numbers[0] or numbers[3] < numbers[1]:
                raise BadTruth(table.path, line, "has a box without x0 <= x1 and y0 <= y1 in pixels")
            of.append(at)
            values.append(numbers)
            names.setdefault(int(numbers[5]), class_labels.label(class_labels.text(found.get("label"))))
            if isinstance(found.get("rle"), str):
                masks.append(_mask(table, line, found["rle"], sizes[at]))
    x0, y0, x1, y1, score, category = np.array(values, np.float64).reshape(-1, len(BOX)).T
    masked = bool(masks) and len(masks) == len(of)
    boxes = np.stack([x0, y0, x1 - x0, y1 - y0], axis=1)
    return ResultsFile(
        place=str(table.path),
        task="instance" if masked else "detect",
        categories=[Category(number, name) for number, name in sorted(names.items())] if all(names.values()) else [],
        rows=list(images),
        found=Detections(
            image=np.array(of, np.int64),
            category=category.astype(np.int64),
            boxes=boxes,
            area=coco_records.sizes(masks) if masked else boxes[:, 2] * boxes[:, 3],
            score=score,
            masks=masks if masked else None,
        ),
        numbers=list(range(len(images))),
        known_sizes=np.array(sizes, np.float64).reshape(-1, 2),
        whole=False,
    )


def _mask(table: LabelTable, line: int, text: str, size: tuple[float, float]) -> Rle:
    """Return a mask for an image of (width, height); raises BadTruth where its run lengths are of another size."""
    width, height = map(int, size)
    try:
        if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
            raise ValueError(size)
        image_masks_rle.runs(text, height, width)
    except ValueError:
        raise BadTruth(table.path, line, "has an rle that is no mask of its image's width and height") from None
    return {"size": [height, width], "counts": text.encode()}


def _objects(table: LabelTable, line: int, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects of a row: its list of them, or itself, where it is not the line of an image without any."""
    if DETECTIONS not in table.columns:
        return [row] if row.get("x0") not in ("", None) else []
    listed = row.get(DETECTIONS) or []
    if not isinstance(listed, list) or not all(isinstance(found, dict) for found in listed):
        raise BadTruth(table.path, line, f"has {DETECTIONS} that are no list of objects")
    return listed
