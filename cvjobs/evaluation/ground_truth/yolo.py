"""YOLO's txt files, one an image: lines of a class number and a box (centre and size) in shares of the image.

A line may also be the polygon of an instance, or have the points of a pose after its box; the box is evaluated. Images
are those with a txt file and, where a folder ``images`` is beside the folder ``labels``, also those without, on which
there is nothing. Several such pairs, as in ``train`` and ``valid``, are one truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvjobs.common.categories import Category
from cvjobs.evaluation.ground_truth import folder_files
from cvjobs.evaluation.ground_truth.types import BadTruth, ObjectTruth
from cvjobs.evaluation.metrics.objects import Truths
from cvjobs.sources.listing import list_source

LABELS, IMAGES = "labels", "images"
NO_LABELS = ("classes.txt", "readme.txt", "license.txt")
NEAR = 2  # levels of folders
MOST = 1 << 31  # classes
SHOWN = 3


def fits(path: Path) -> bool:
    """Return whether a place is a folder with txt files, and none of XML as far down."""
    return path.is_dir() and any(
        folder_files.any_below(path, ".txt", levels) and not folder_files.any_below(path, ".xml", levels)
        for levels in (NEAR, math.inf)
    )


def read(path: Path, masks: bool, names: Sequence[str]) -> ObjectTruth:  # noqa: ARG001 - boxes are evaluated
    """Return the objects of a folder, their boxes in shares of their image; raises BadTruth that names the line."""
    folders = _folders(path)
    known, points = _names(folders, path, names), _points(folders[0].place)
    empty = {folder.prefix + name for folder in folders for name in _images(folder.place)}
    stems: list[str] = []
    rows: list[tuple[int, int, list[float]]] = []
    aside: list[Path] = []
    texts = [(folder, file) for folder in folders for file in folder_files.below(folder.place, ".txt")]
    for beside, file in texts:
        stem = beside.prefix + folder_files.name_of(file, beside.place)
        if file.name.lower() in NO_LABELS:
            continue
        if stem not in empty and not _hold_labels(file):
            aside.append(file)
            continue
        rows += [(len(stems), *row) for row in _objects(file, len(known), points)]
        stems.append(stem)
    if aside and not stems:
        _objects(aside[0], len(known), points)  # says what is wrong with it
    empty.difference_update(stems)
    image, number = (np.array([row[column] for row in rows], np.int64) for column in (0, 1))
    boxes = np.array([row[2] for row in rows], np.float64).reshape(-1, 4)
    ids = list(range(len(known))) or np.unique(number).tolist()
    nothing = np.zeros(len(rows), np.bool_)
    return ObjectTruth(
        format="yolo",
        names=[*stems, *sorted(empty)],
        endings=folder_files.whole(stems) and not empty,
        notes=_left_out([file.name for file in aside]),
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


@dataclass(frozen=True)
class _Folder:
    """A folder of labels, and what comes before the names of its images."""

    place: Path
    prefix: str = ""


def _folders(path: Path) -> list[_Folder]:
    """Return the folders ``labels`` of a truth, or it itself where it has none: what else is in it is no label."""
    if (path / LABELS).is_dir():
        return [_Folder(path / LABELS)]
    found = folder_files.named(path, LABELS)
    return [_Folder(at, f"{folder_files.name_of(at.with_name(IMAGES), path)}/") for at in found] or [_Folder(path)]


def _names(folders: Sequence[_Folder], path: Path, given: Sequence[str]) -> list[str]:
    """Return the names of the classes, which several folders must have in common; raises BadTruth."""
    known = [folder_files.class_names(folder.place, given) for folder in folders]
    for folder, names in zip(folders, known, strict=True):
        if names != known[0]:
            raise BadTruth(folder.place, None, f"has other classes than {folders[0].place}: name one of the two")
    return known[0] or folder_files.class_names(path, given)


def _left_out(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = ", ..." if len(names) > SHOWN else ""
    return [f"left out, text files that hold no labels: {len(names):,} ({', '.join(names[:SHOWN])}{more})"]


def _points(folder: Path) -> int:
    """Return how many numbers of a line are those of a pose, as ``kpt_shape`` of ``data.yaml`` says; 0 without one."""
    shape = folder_files.yaml_of(folder).get("kpt_shape")
    try:
        return math.prod(int(number) for number in shape) if shape else 0
    except (TypeError, ValueError):
        return 0


def _hold_labels(file: Path) -> bool:
    """Return whether a text holds labels, well written or not: no list of names and no note."""
    text = folder_files.content(file).decode("utf-8-sig", errors="replace").replace(",", " ")
    some = [words for words in map(str.split, text.splitlines()) if words]
    return all(map(_are_numbers, some)) or any(len(words) > 4 and _are_numbers(words[1:]) for words in some)


def _are_numbers(words: Sequence[str]) -> bool:
    try:
        return bool(list(map(float, words)))
    except ValueError:
        return False


def _objects(file: Path, classes: int, points: int) -> list[tuple[int, list[float]]]:
    found = []
    for line, words in enumerate(_lines(file), 1):
        if not words:
            continue
        try:
            number, values = _whole(words[0]), [float(word) for word in words[1:]]
        except (OverflowError, ValueError):
            raise BadTruth(file, line, "is no YOLO label: write a class number and numbers after it") from None
        if classes and not 0 <= number < classes:
            raise BadTruth(file, line, f"has the class {number}, and there are names for {classes:,}")
        if not 0 <= number < MOST:
            raise BadTruth(file, line, f"has the class {number}: write a number from 0 to {MOST - 1:,}")
        if points and len(values) == 4 + points:
            values = values[:4]  # what follows is a pose, whose numbers need not be shares
        if not all(map(math.isfinite, values)) or len(values) < 4 or (len(values) > 5 and len(values) % 2):
            raise BadTruth(file, line, "is no YOLO label: write class, x, y, width and height, or a polygon")
        if max(map(abs, values)) > 2:
            raise BadTruth(file, line, "has values over 1: boxes are in shares of the image")
        found.append((number, _box(values)))
    return found


def _whole(word: str) -> int:
    """Return the number that a word is, exactly, also one written as ``3.0``; raises OverflowError or ValueError."""
    if word.isascii() and word.isdigit():
        return int(word)
    number = float(word)
    if not number.is_integer():
        raise ValueError(word)
    return int(number)


def _lines(file: Path) -> list[list[str]]:
    try:
        text = folder_files.content(file).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadTruth(file, None, "is no UTF-8 text") from None
    return [line.split() for line in text.splitlines()]


def _box(values: list[float]) -> list[float]:
    """Return x, y, width and height from a box around its centre, or from the points of a polygon."""
    if len(values) < 6:
        x, y, width, height = *values[:2], abs(values[2]), abs(values[3])
        return [x - width / 2, y - height / 2, width, height]
    across, down = values[::2], values[1::2]
    return [min(across), min(down), max(across) - min(across), max(down) - min(down)]


def _images(folder: Path) -> set[str]:
    """Return the images, without their endings, of the folder ``images`` that belongs to a folder ``labels``."""
    parts = list(folder.absolute().parts)
    if LABELS not in parts:
        return set()
    at = len(parts) - 1 - parts[::-1].index(LABELS)
    beside = Path(*parts[:at], IMAGES, *parts[at + 1 :])
    if not beside.is_dir():
        return set()
    paths = list_source(str(beside)).images["path"].to_pylist()
    return {path.rpartition(".")[0] for path in paths}
