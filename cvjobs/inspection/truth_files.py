"""The truths that images are looked at with: in whichever format `cvjobs eval` reads, each of one split or of several.

What makes no sense in them is counted, and the rest is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cvjobs.common import class_labels
from cvjobs.common.errors import WrongUse
from cvjobs.common.paths import flaw, path_text
from cvjobs.evaluation.ground_truth import (
    coco,
    folder_files,
    folders,
    labelled_output,
    masks,
    openimages,
    panoptic,
    table,
    voc,
    yolo,
    yolo_lines,
)
from cvjobs.evaluation.ground_truth.open import TruthFormat, of_yolo
from cvjobs.evaluation.ground_truth.types import BadTruth, GroundTruth
from cvjobs.inspection.problems import Problems
from cvjobs.storage.remote_files import is_remote
from cvjobs.training.data import box_labels

FILES: tuple[TruthFormat, ...] = (panoptic, coco, openimages, table)
KNOWN = (
    "COCO JSON, OpenImages' CSV, a table with the columns path and label, or a folder of VOC XML, of YOLO txt, of PNG "
    "masks or of class folders"
)
IMAGES, MASKS = "images", "masks"  # folders beside each other
TRIED = 200  # text files that are looked into
_LETTERS = re.compile("[a-z]+")


@dataclass(frozen=True, kw_only=True)
class SplitTruth:
    """A truth, and the split that all of it is of; empty where it does not say."""

    place: str
    split: str
    truth: GroundTruth

    @property
    def folder(self) -> str:
        """The folder of its masks as listings have it, empty where it has none."""
        path = os.path.abspath(os.path.expanduser(self.place))
        return path_text(os.fsencode(path)) if self.truth.format == "masks" else ""


def read(given: Sequence[str], names: Sequence[str], problems: Problems) -> list[SplitTruth]:
    """Return the truths of places, written as ``PLACE`` or ``SPLIT=PLACE``; raises WrongUse where one is none.

    ``names`` are those of classes that are numbers.
    """
    found = []
    for text in given:
        split, place = _said(text)
        if why := flaw(place):
            raise WrongUse(f"--truth {why}.")
        path = Path(os.path.expanduser(place))
        if is_remote(place.encode()):
            raise WrongUse(f"The truth {place} must be on this machine: copy it to a folder first.")
        if not path.exists():
            raise WrongUse(f"There is no truth at {place}: name {KNOWN}.")
        split = split or split_of_truth(path)

        def bad(error: BadTruth, split: str = split) -> None:
            record = error.record
            at = f", line {error.line}" if error.line else f", annotation {record:,}" if record else ""
            problems.add(error.kind, split=split, where=f"{error.file}{at}", detail=_words(error))

        truth = _format(path).read(path, True, names, bad)
        if not len(truth):
            raise WrongUse(f"The truth {place} knows no image: name {KNOWN}.")
        found.append(SplitTruth(place=place, split=split, truth=truth))
    kinds = {type(one.truth) for one in found}
    if len(kinds) > 1:
        raise WrongUse("--truth names truths of several kinds: look at boxes, masks and labels one after the other.")
    return found


def held(data: str) -> tuple[str, ...]:
    """Return the truths of boxes or masks that a folder of images holds itself, as training takes it; perhaps none."""
    path = Path(os.path.expanduser(data))
    if is_remote(data.encode()) or not path.is_dir():
        return ()
    if files := [file for file in box_labels.coco_files(path) if coco.fits(file)]:
        return tuple(map(str, files))
    if voc.fits(path) or ((path / yolo.LABELS).is_dir() and _labelled_by_txt(path)):
        return (data,)
    places = [path, *(place for place in sorted(path.iterdir()) if class_labels.split(place.name))]
    return tuple(str(place / MASKS) for place in places if (place / MASKS).is_dir() and (place / IMAGES).is_dir())


def _words(error: BadTruth) -> str:
    """Return what is wrong, without the number that a record has alone."""
    return re.sub(r" in (annotation|record|segment) 1( of 1)?\b", "", error.what) if error.record else error.what


def _said(text: str) -> tuple[str, str]:
    before, sign, after = text.partition("=")
    split = class_labels.split(before) if sign else ""
    return (split, after) if split else ("", text)


def _format(path: Path) -> TruthFormat:
    if path.is_file():
        for one in FILES:
            if one.fits(path):
                return one
    elif labelled_output.fits(path):
        return labelled_output
    elif voc.fits(path):
        return voc
    elif _labelled_by_txt(path):
        return yolo
    elif masks.fits(path):
        return masks
    elif folders.fits(path):
        return folders
    raise WrongUse(of_yolo(path) or f"{path} is no truth: name {KNOWN}.")


def _labelled_by_txt(path: Path) -> bool:
    """Return whether a folder has text files with boxes: lists of classes and notes are beside anything."""
    if not yolo.fits(path):
        return False
    texts = folder_files.below(path, ".txt")
    return (path / yolo.LABELS).is_dir() or any(map(yolo_lines.hold_boxes, texts[:TRIED]))


def split_of_truth(path: Path) -> str:
    """Return the split that the name of a file says, or that of a folder that it is in; empty for none."""
    path = path.absolute()
    words = _LETTERS.findall(path.stem.lower()) if path.suffix else []
    return _first([*words, path.name, path.parent.name, path.parent.parent.name])


def split_of_image(path: str) -> str:
    """Return the split that the folders of an image's path say, as ``train`` or ``train2017``; empty for none."""
    return _first(path.split("/")[:-1])


def _first(words: Iterable[str]) -> str:
    return next(filter(None, (class_labels.split(word.rstrip("0123456789_-")) for word in words)), "")
