"""YOLO's txt files, one an image: lines of a class number and a box (centre and size) in shares of the image.

A line may also be the polygon of an instance, or have the points of a pose after its box; the box is evaluated. Images
are those with a txt file and, where a folder ``images`` is beside the folder ``labels``, also those without, on which
there is nothing. Several such pairs, as in ``train`` and ``valid``, are one truth.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from cvjobs.common.categories import Category
from cvjobs.common.paths import path_bytes
from cvjobs.evaluation.ground_truth import darknet, folder_files, image_sizes, yolo_lines
from cvjobs.evaluation.ground_truth.types import BadTruth, Complaint, ObjectTruth, refuse
from cvjobs.evaluation.metrics.objects import Truths
from cvjobs.sources.listing import list_source

LABELS, IMAGES = "labels", "images"
NEAR = 2  # levels of folders
SHOWN = 3


def fits(path: Path) -> bool:
    """Return whether a place is a folder with txt files, and none of XML as far down."""
    return path.is_dir() and any(
        folder_files.any_below(path, ".txt", levels) and not folder_files.any_below(path, ".xml", levels)
        for levels in (NEAR, math.inf)
    )


def read(path: Path, masks: bool, names: Sequence[str], bad: Complaint = refuse) -> ObjectTruth:
    """Return the objects of a folder, their boxes in shares of their image; raises BadTruth that names the line.

    With ``masks`` the truth has their ``outlines``; it has no masks, whose sizes are not known.
    """
    folders = _folders(path)
    known, pose = class_names(path, names), yolo_lines.points(folders[0].place)
    empty = {folder.prefix + name for folder in folders for name in _images(folder.place)}
    lists, listed = darknet.listed(path)
    empty.update(listed)
    stems: list[str] = []
    rows: list[tuple[int, int, list[float], Sequence[float]]] = []
    aside: list[Path] = []
    texts = [(folder, file) for folder in folders for file in folder_files.below(folder.place, ".txt")]
    for beside, file in texts:
        stem = beside.prefix + folder_files.name_of(file, beside.place)
        if file.name.lower() in yolo_lines.NO_LABELS or file.absolute() in lists:
            continue
        if stem not in empty and not yolo_lines.hold_labels(file):
            aside.append(file)
            continue
        lines = yolo_lines.read(file, len(known), pose, bad=bad)
        rows += [(len(stems), one.number, one.box, one.outline if masks else ()) for one in lines]
        stems.append(stem)
    if aside and not stems:
        yolo_lines.read(aside[0], len(known), pose)  # says what is wrong with it
    empty.difference_update(stems)
    image, number = (np.array([row[column] for row in rows], np.int64) for column in (0, 1))
    boxes = np.array([row[2] for row in rows], np.float64).reshape(-1, 4)
    ids = list(range(len(known))) or np.unique(number).tolist()
    nothing = np.zeros(len(rows), np.bool_)
    images = [*stems, *sorted(empty)]
    return ObjectTruth(
        format="yolo",
        names=images,
        endings=folder_files.whole(stems) and not empty,
        notes=left_out([file.name for file in aside]),
        categories=[Category(i, known[i] if known else "") for i in ids],
        named=bool(known),
        relative=True,
        measure=_measure(folders, images),
        outlines=[row[3] for row in rows] if masks else (),
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


def class_names(path: Path, given: Sequence[str]) -> list[str]:
    """Return the names of the classes, which several folders must have in common, none without any; raises BadTruth."""
    folders = _folders(path)
    known = [folder_files.class_names(folder.place, given) for folder in folders]
    for folder, names in zip(folders, known, strict=True):
        if names != known[0]:
            raise BadTruth(folder.place, None, f"has other classes than {folders[0].place}: name one of the two")
    return known[0] or folder_files.class_names(path, given) or darknet.names(path)


def left_out(names: Sequence[str]) -> list[str]:
    """Return what is said of text files of these names."""
    if not names:
        return []
    more = ", ..." if len(names) > SHOWN else ""
    return [f"left out, text files that hold no labels: {len(names):,} ({', '.join(names[:SHOWN])}{more})"]


def _images(folder: Path) -> dict[str, Path]:
    """Return the images, by name without ending, of the folder ``images`` that belongs to a folder ``labels``."""
    parts = list(folder.absolute().parts)
    if LABELS not in parts:
        return {}
    at = len(parts) - 1 - parts[::-1].index(LABELS)
    beside = Path(*parts[:at], IMAGES, *parts[at + 1 :])
    return _listed(beside) if beside.is_dir() else {}


def _listed(folder: Path) -> dict[str, Path]:
    paths: list[str] = list_source(str(folder)).images["path"].to_pylist()
    return {path.rpartition(".")[0]: folder / os.fsdecode(path_bytes(path)) for path in paths}


def _measure(folders: Sequence[_Folder], names: Sequence[str]) -> Callable[[int], tuple[int, int]]:
    """Return what reads the size of an image, which is in a folder ``images`` or beside its label."""

    @cache
    def files() -> dict[str, Path]:
        found = {}
        for folder in folders:
            images = _images(folder.place) or _listed(folder.place)
            found.update({folder.prefix + stem: file for stem, file in images.items()})
        return found

    def size(at: int) -> tuple[int, int]:
        file = files().get(names[at])
        return image_sizes.UNKNOWN if file is None else image_sizes.size(file)

    return size
