"""OpenImages' CSV of boxes: a line an object, in shares of its image; names of classes are in a CSV beside it.

A group of objects (``IsGroupOf``) is a crowd. Images are those with a line, by their ids, which are names of files.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from cvjobs.common.categories import Category
from cvjobs.evaluation.ground_truth.types import BadTruth, Complaint, ObjectTruth, refuse
from cvjobs.evaluation.metrics.objects import Floats, Ints, Truths

CORNERS = ("XMin", "YMin", "XMax", "YMax")
COLUMNS = ("ImageID", "LabelName", *CORNERS)
GROUP = "IsGroupOf"
DESCRIPTIONS = "*class-descriptions*.csv"
FAR = 2.0  # shares of the image
LONGEST = 160  # characters of a reason


def fits(path: Path) -> bool:
    """Return whether a place is a CSV with OpenImages' columns."""
    return path.is_file() and path.suffix.lower() == ".csv" and set(COLUMNS) <= set(_header(path))


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [name.strip() for name in next(csv.reader(file), [])]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def read(path: Path, masks: bool, names: Sequence[str], bad: Complaint = refuse) -> ObjectTruth:  # noqa: ARG001 - boxes, with classes by name
    """Return the boxes of a file, in shares of their images; raises BadTruth."""
    table = _table(path)
    images = pc.unique(table["ImageID"]).sort().to_pylist()
    x0, y0, x1, y1 = (table[name].to_numpy() for name in CORNERS)
    corners: Floats = np.stack([x0, y0, x1, y1], axis=1).astype(np.float64)
    wrong = ~(np.abs(corners) <= FAR).all(axis=1) | (x1 < x0) | (y1 < y0)
    for at in np.flatnonzero(wrong).tolist():
        words = "has no XMin <= XMax and YMin <= YMax that are shares of the image"
        bad(BadTruth(path, at + 2, words, "box_bad"))
    table, corners = table.filter(pa.array(~wrong)), corners[~wrong]
    labels = pc.unique(table["LabelName"]).sort().to_pylist()
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    crowd = table[GROUP].to_numpy() == 1 if GROUP in table.column_names else np.zeros(len(table), np.bool_)
    known = _descriptions(path)
    return ObjectTruth(
        format="openimages",
        names=images,
        endings=False,
        categories=[Category(at + 1, known.get(label, label)) for at, label in enumerate(labels)],
        relative=True,
        aliases={label: known[label] for label in labels if label in known},
        objects=Truths(
            image=_places(table["ImageID"], images),
            category=_places(table["LabelName"], labels),
            boxes=boxes,
            area=boxes[:, 2] * boxes[:, 3],
            crowd=crowd,
            ignored=crowd,
            unnumbered=np.zeros(len(table), np.bool_),
        ),
    )


def _places(column: pa.ChunkedArray, values: list[str]) -> Ints:
    found: Ints = pc.index_in(column, pa.array(values, pa.string())).to_numpy().astype(np.int64)
    return found


def _table(path: Path) -> pa.Table:
    wanted = [name for name in (*COLUMNS, GROUP) if name in _header(path)]
    kinds = {name: pa.string() if name in COLUMNS[:2] else pa.float64() for name in wanted}
    try:
        table = arrow_csv.read_csv(
            path,
            read_options=arrow_csv.ReadOptions(use_threads=False),  # which tells the row of what is wrong
            convert_options=arrow_csv.ConvertOptions(include_columns=wanted, column_types=kinds),
        )
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:LONGEST]
        raise BadTruth(path, None, f"is no CSV of OpenImages that can be read ({reason})") from error
    for name in COLUMNS:
        if table[name].null_count or (name in COLUMNS[:2] and pc.any(pc.equal(table[name], "")).as_py()):
            raise BadTruth(path, None, f"has lines without {name}")
    return table.combine_chunks()


def _descriptions(path: Path) -> dict[str, str]:
    """Return the names of labels (``/m/011k07``) of the files of descriptions beside a truth."""
    known: dict[str, str] = {}
    for file in sorted(path.parent.glob(DESCRIPTIONS)):
        try:
            with file.open(encoding="utf-8-sig", newline="") as opened:
                rows = [[cell.strip() for cell in row] for row in csv.reader(opened)]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise BadTruth(file, None, f"is no CSV that can be read ({type(error).__name__})") from error
        known.update({row[0]: row[1] for row in rows if len(row) > 1 and row[0] and row[1]})
    return known
