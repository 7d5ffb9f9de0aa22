"""YOLO's txt files, one an image: lines of a class number and a box (centre and size) in shares of the image.

A line may also be the polygon of an instance; its box is evaluated. Images are those with a txt file and, where a
folder ``images`` is beside the folder ``labels``, also those without, on which there is nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cvjobs.common.categories import Category
from cvjobs.evaluation.ground_truth import folder_files
from cvjobs.evaluation.ground_truth.types import BadTruth, ObjectTruth
from cvjobs.evaluation.metrics.objects import Truths
from cvjobs.sources.listing import list_source

NO_LABELS = ("classes.txt", "readme.txt", "license.txt")


def fits(path: Path) -> bool:
    """Return whether a place is a folder with txt files."""
    return path.is_dir() and folder_files.any_below(path, ".txt") and not folder_files.any_below(path, ".xml")


def read(path: Path, masks: bool, names: Sequence[str]) -> ObjectTruth:  # noqa: ARG001 - boxes are evaluated
    """Return the objects of a folder, their boxes in shares of their image; raises BadTruth that names the line."""
    folder = path / "labels" if (path / "labels").is_dir() else path
    known = folder_files.class_names(folder, names)
    found = [file for file in folder_files.below(folder, ".txt") if file.name.lower() not in NO_LABELS]
    rows = [(image, *row) for image, file in enumerate(found) for row in _objects(file, len(known))]
    image, number = (np.array([row[column] for row in rows], np.int64) for column in (0, 1))
    boxes = np.array([row[2] for row in rows], np.float64).reshape(-1, 4)
    ids = list(range(len(known))) or np.unique(number).tolist()
    nothing = np.zeros(len(rows), np.bool_)
    stems = [folder_files.name_of(file, folder) for file in found]
    return ObjectTruth(
        format="yolo",
        names=[*stems, *sorted(_images(folder) - set(stems))],
        endings=False,
        categories=[Category(i, known[i] if known else "") for i in ids],
        named=bool(known),
        relative=True,
        objects=Truths(
            image=image,
            category=np.searchsorted(ids, number),
            boxes=boxes,
            area=boxes[:, 2] * boxes[:, 3],
            crowd=nothing,
            ignored=nothing,
            unnumbered=nothing,
        ),
    )


def _objects(file: Path, classes: int) -> list[tuple[int, list[float]]]:
    found = []
    for line, words in enumerate(_lines(file), 1):
        if not words:
            continue
        try:
            number, values = int(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            raise BadTruth(file, line, "is no YOLO label: write a class number and numbers after it") from None
        if not 0 <= number < (classes or 1 << 31):
            raise BadTruth(file, line, f"has the class {number}, and there are names for {classes:,}")
        if not all(map(math.isfinite, values)) or len(values) < 4 or (len(values) > 5 and len(values) % 2):
            raise BadTruth(file, line, "is no YOLO label: write class, x, y, width and height, or a polygon")
        if max(map(abs, values)) > 2:
            raise BadTruth(file, line, "has values over 1: boxes are in shares of the image")
        found.append((number, _box(values)))
    return found


def _lines(file: Path) -> list[list[str]]:
    try:
        return [line.split() for line in folder_files.content(file).decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise BadTruth(file, None, "is no UTF-8 text") from None


def _box(values: list[float]) -> list[float]:
    """Return x, y, width and height from a box around its centre, or from the points of a polygon."""
    if len(values) < 6:
        x, y, width, height = values[:4]
        return [x - width / 2, y - height / 2, width, height]
    across, down = values[::2], values[1::2]
    return [min(across), min(down), max(across) - min(across), max(down) - min(down)]


def _images(folder: Path) -> set[str]:
    """Return the images, without their endings, of the folder ``images`` that belongs to a folder ``labels``."""
    parts = list(folder.absolute().parts)
    if "labels" not in parts:
        return set()
    at = len(parts) - 1 - parts[::-1].index("labels")
    beside = Path(*parts[:at], "images", *parts[at + 1 :])
    if not beside.is_dir():
        return set()
    paths = list_source(str(beside)).images["path"].to_pylist()
    return {path.rpartition(".")[0] for path in paths}
