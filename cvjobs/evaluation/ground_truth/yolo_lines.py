"""Lines of YOLO's txt files: a class number, a box or a polygon in shares of the image, and of predictions a score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cvjobs.evaluation.ground_truth import folder_files
from cvjobs.evaluation.ground_truth.types import BadTruth, Complaint, refuse

NO_LABELS = ("classes.txt", "readme.txt", "license.txt")
MOST = 1 << 31  # classes


class YoloLine(NamedTuple):
    """An object: its class, its box (x, y, width, height) in shares of the image, and its score, 1 for the truth.

    ``outline`` has x and y of each point of its polygon in such shares; it is empty for a box.
    """

    number: int
    box: list[float]
    score: float
    outline: Sequence[float] = ()


def points(folder: Path) -> int:
    """Return how many numbers of a line are those of a pose, as ``kpt_shape`` of ``data.yaml`` says; 0 without one."""
    shape = folder_files.yaml_of(folder).get("kpt_shape")
    try:
        return math.prod(int(number) for number in shape) if shape else 0
    except (TypeError, ValueError):
        return 0


def hold_labels(file: Path) -> bool:
    """Return whether a text holds labels, well written or not: no list of names and no note."""
    return all(map(_are_numbers, _words(file))) or hold_boxes(file)


def hold_boxes(file: Path) -> bool:
    """Return whether a text has a line of a class and four numbers or more."""
    return any(len(words) > 4 and _are_numbers(words[1:]) for words in _words(file))


def _words(file: Path) -> list[list[str]]:
    text = folder_files.content(file).decode("utf-8-sig", errors="replace").replace(",", " ")
    return [words for words in map(str.split, text.splitlines()) if words]


def _are_numbers(words: Sequence[str]) -> bool:
    try:
        return bool(list(map(float, words)))
    except ValueError:
        return False


def read(file: Path, classes: int, pose: int, *, scored: bool = False, bad: Complaint = refuse) -> list[YoloLine]:
    """Return the objects of a file; ``bad`` is told of what makes no sense, by default to raise it.

    Args:
        file: the text of one image.
        classes: how many classes have names; 0 where none has.
        pose: how many numbers of a line are those of a pose.
        scored: the last number of each line is a score.
        bad: what becomes of a line, or a file, that makes no sense.
    """
    try:
        lines = _lines(file)
    except BadTruth as error:
        bad(error)
        return []
    found = []
    for line, words in enumerate(lines, 1):
        if not words:
            continue
        try:
            number, values = _class(file, line, words, classes)
            score = _score(file, line, values, pose) if scored else 1.0
            outline = _outline(file, line, values[:-1] if scored else values, pose)
            found.append(YoloLine(number, _box(outline), score, outline if len(outline) > 5 else ()))
        except BadTruth as error:
            bad(error)
    return found


def _class(file: Path, line: int, words: Sequence[str], classes: int) -> tuple[int, list[float]]:
    """Return the class of a line, and the numbers after it."""
    try:
        number, values = _whole(words[0]), [float(word) for word in words[1:]]
    except (OverflowError, ValueError):
        raise BadTruth(file, line, "is no YOLO label: write a class number and numbers after it", "box_bad") from None
    if classes and not 0 <= number < classes:
        words_ = f"has the class {number}, and there are names for {classes:,}"
        raise BadTruth(file, line, words_, "class_unknown")
    if not 0 <= number < MOST:
        words_ = f"has the class {number}: write a number from 0 to {MOST - 1:,}"
        raise BadTruth(file, line, words_, "class_unknown")
    return number, values


def _outline(file: Path, line: int, values: list[float], pose: int) -> list[float]:
    """Return the box around its centre, or the polygon, of a line."""
    if pose and len(values) == 4 + pose:
        values = values[:4]  # what follows is a pose, whose numbers need not be shares
    if not all(map(math.isfinite, values)) or len(values) < 4 or (len(values) > 5 and len(values) % 2):
        words = "is no YOLO label: write class, x, y, width and height, or a polygon"
        raise BadTruth(file, line, words, "box_bad")
    if max(map(abs, values)) > 2:
        raise BadTruth(file, line, "has values over 1: boxes are in shares of the image", "box_bad")
    return values


def _score(file: Path, line: int, values: Sequence[float], pose: int) -> float:
    """Return the last number; raises BadTruth where that is of the box or the outline."""
    if len(values) != 5 + pose and len(values) % 2 == 0:
        raise BadTruth(file, line, "has no score after its box: write class, x, y, width, height and score")
    if not values or not 0 <= values[-1] <= 1:
        raise BadTruth(file, line, "has no score from 0 to 1 at its end")
    return values[-1]


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
