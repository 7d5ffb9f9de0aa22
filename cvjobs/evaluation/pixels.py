"""The evaluation of class maps: what pixels are taken for what, image by image and in all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvjobs.common import devices
from cvjobs.common.categories import Category
from cvjobs.common.formatting import counted
from cvjobs.common.rules import FIRST
from cvjobs.evaluation import by_number
from cvjobs.evaluation.align import Classes, Images, named, pair_classes, pair_images
from cvjobs.evaluation.by_number import Numbered
from cvjobs.evaluation.ground_truth import masks
from cvjobs.evaluation.ground_truth.types import NOTHING, BadTruth, PixelTruth
from cvjobs.evaluation.metrics.confusion import Confusion, defined, mean
from cvjobs.evaluation.metrics.objects import Floats, Ints
from cvjobs.evaluation.predicted_masks import MaskFolder
from cvjobs.evaluation.predictions import EvaluatedOutput
from cvjobs.evaluation.void import USUAL, WHITE, Void, ask, is_black_and_white

HEADLINE = ("mIoU", "pixel accuracy", "mean class accuracy")
COLUMNS = ("pixels", "IoU", "accuracy")
IDS = 1 << 16
VOID = -1


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """Class maps beside the truth: ``matrix`` counts pixels of ``categories``.

    ``right`` (images,) is the share of pixels that is right in each image of the truth, -1 where nothing was counted,
    and ``row`` (images,) its row of the predictions, or -1. The maps of ``other_size`` differ in size from the truth.
    ``there`` (65536,) is the place in ``categories`` of each value of a mask, VOID for what does not count; ``void``
    is that value and ``ignored`` how many pixels have it. In what ``white`` names, 255 is the class 1. ``strange`` are
    the pixels taken for each class that the truth does not have, the most first. ``numbered`` has both lists of classes
    where they fit by number.
    """

    images: Images
    classes: Classes
    categories: list[Category]
    matrix: Confusion
    right: Floats
    row: Ints
    other_size: list[str]
    there: Ints
    void: int | None
    ignored: int
    white: list[str]
    strange: dict[str, int]
    numbered: Numbered | None

    @property
    def notes(self) -> list[str]:
        """Return sentences on what was left out."""
        said = [*self.images.notes, *by_number.notes(self.numbered)]
        if self.other_size:
            count = len(self.other_size)
            said.append(f"left out, images whose mask has another size: {count:,} ({named(self.other_size, 3)})")
        said += self.classes.unpredicted_note("classes", True)
        if self.strange:
            pixels = counted(sum(self.strange.values()), "pixels")
            said.append(f"classes that the truth does not have: {pixels} taken for {named(list(self.strange))}")
        said += [f"{USUAL} is the class {WHITE}: the {side} hold nothing else but 0" for side in self.white]
        return said

    @property
    def share(self) -> dict[str, Any]:
        """Return the value of pixels that do not count, how many there are, and their share of all."""
        whole = self.ignored + int(self.matrix.counts.sum())
        return {"value": self.void, "pixels": self.ignored, "share": self.ignored / whole if whole else 0.0}


def evaluate(truth: PixelTruth, predictions: EvaluatedOutput | MaskFolder, void: Void) -> Mapped:
    """Compare each class map with its mask; void pixels of the truth do not count, whatever is there.

    Classes fit by name where the truth has names, else by id. Raises BadTruth, JobFailed or WrongUse.
    """
    images = pair_images(truth.names, truth.endings, predictions.rows, predictions.failed)
    known = list(truth.categories) or _by_id(predictions.categories)
    classes = pair_classes(known, True, predictions.categories) if truth.categories else pair_classes(known, False, [])
    given = truth.categories or predictions.categories
    if predictions.rules > FIRST:
        if truth.beside and predictions.categories:
            by_number.check(predictions.categories, truth.beside, str(truth.names_file))
        ask(void, truth, given)
    white = is_black_and_white(void, truth, given)
    there = _table({at if truth.painted else c.id: at for at, c in enumerate(known)}, VOID - 1)
    if white:
        there[USUAL] = there[WHITE]
    value = NOTHING if truth.painted else void.value
    if value is not None:
        there[value] = VOID
    said, told = _said(predictions, _table(classes.place, len(known)), given)
    shape = len(known), len(known) + 1
    nothing = np.zeros(0, np.int64)
    matrix = Confusion.of(nothing, nothing, shape)
    right, row, other = np.full(len(truth), -1.0), np.full(len(truth), -1), []
    ignored, unknown = 0, np.zeros(IDS, np.int64)

    def compare(pair: tuple[int, int], content: bytes | None) -> tuple[Confusion, int, Ints]:
        """Return the pixels of one image, how many do not count, -1 where its map has another size, and strange ids."""
        at, number = pair
        given = there[truth.load(at)]
        if (given == VOID - 1).any():
            raise BadTruth(truth.files[at], None, "has a class id without a name, or over 255: see --labels, --void")
        judged = given >= 0
        left = given.size - int(judged.sum())
        if content is None:
            return Confusion.of(given[judged], np.full(given.size - left, len(known)), shape), left, nothing
        try:
            predicted = masks.pixels(content)
        except masks.NoMask as error:
            raise predictions.broken(number, str(error)) from error
        if predicted.shape != given.shape:
            return Confusion.of(nothing, nothing, shape), -1, nothing
        ids = predicted[judged].astype(np.int64)
        taken = said[ids]
        return Confusion.of(given[judged], taken, shape), left, ids[taken == len(known)]

    with ThreadPoolExecutor(devices.cpus(), thread_name_prefix="masks") as threads:
        for numbers, contents in _work(predictions, images, len(truth)):
            group = [matrix]
            compared = threads.map(compare, numbers, contents)
            for (at, number), (found, left, ids) in zip(numbers, compared, strict=True):
                unknown += np.bincount(ids, minlength=IDS)
                row[at] = number
                group.append(found)
                right[at] = found.accuracy
                ignored += max(left, 0)
                if left < 0:
                    other.append(truth.names[at])
            matrix = Confusion.total(group)
    return Mapped(
        images=images,
        classes=classes,
        categories=known,
        matrix=matrix,
        right=right,
        row=row,
        other_size=other,
        there=there,
        void=None if truth.painted else void.value,
        ignored=ignored,
        white=[name for name, found in (("masks", white), ("predictions", told)) if found],
        strange=_strange(unknown, predictions.categories),
        numbered=_numbered(truth, predictions, [known[at] for at in np.flatnonzero(matrix.truths).tolist()]),
    )


def _said(predictions: EvaluatedOutput | MaskFolder, said: Ints, given: Sequence[Category]) -> tuple[Ints, bool]:
    """Return the place in the truth of each value of a class map, and whether 255 is the class 1 there."""
    free = all(category.id != USUAL for category in given)
    told = free and isinstance(predictions, MaskFolder) and predictions.is_black_and_white()
    if told:
        said[USUAL] = said[WHITE]
    return said, told


def _numbered(truth: PixelTruth, predictions: EvaluatedOutput | MaskFolder, there: list[Category]) -> Numbered | None:
    """Return both lists of classes where they fit by number; None where by name, or where no side has names."""
    if truth.named:
        return None
    names = {category.id: category.name for category in truth.beside}
    own = [Category(category.id, names.get(category.id, "")) for category in there]
    return by_number.of(predictions.categories, own, truth.format)


def _strange(counts: Ints, predicted: list[Category]) -> dict[str, int]:
    """Return the pixels of each id, by the name of its class, the most first."""
    names = {category.id: category.name for category in predicted}
    there = [id_ for id_ in np.argsort(-counts, kind="stable").tolist() if counts[id_]]
    return {names.get(id_) or f"class {id_}": int(counts[id_]) for id_ in there}


def _work(
    predictions: EvaluatedOutput | MaskFolder, images: Images, count: int
) -> Iterator[tuple[list[tuple[int, int]], list[bytes | None]]]:
    """Yield images of the truth, (place, row of the predictions), with their class maps; at last those without."""
    left = np.ones(count, np.bool_)
    for rows, maps in predictions.class_maps(np.flatnonzero(images.place >= 0)):
        places = images.place[rows]
        left[places] = False
        yield list(zip(places.tolist(), rows.tolist(), strict=True)), [*maps]
    rest = np.flatnonzero(left).tolist()
    yield [(at, -1) for at in rest], [None] * len(rest)


def _by_id(predicted: list[Category]) -> list[Category]:
    """Return the classes of ids 0..255, with the names that the predictions have for them."""
    names = {category.id: category.name for category in predicted}
    return [Category(at, names.get(at, f"class {at}")) for at in range(max(256, *(at + 1 for at in names), 0))]


def _table(place: dict[int, int], other: int) -> Ints:
    table = np.full(IDS, other)
    for id_, at in place.items():
        if 0 <= id_ < IDS:
            table[id_] = at
    return table


def shown(met: Mapped, predicted: list[Category]) -> tuple[Ints, dict[int, str]]:
    """Return the id (classes,) by which each class of the truth is drawn, and the names of all ids that are drawn.

    It is that of the class of the predictions; those that the model does not know come behind.
    """
    ids = np.full(len(met.categories), -1)
    for id_, place in met.classes.place.items():
        ids[place] = id_
    names = {category.id: category.name for category in predicted}
    others = np.flatnonzero(ids < 0)
    ids[others] = max([*names, *met.classes.place], default=-1) + 1 + np.arange(len(others))
    return ids, {**{id_: met.categories[at].name for at, id_ in enumerate(ids.tolist())}, **names}


def truth_map(truth: PixelTruth, met: Mapped, ids: Ints, at: int) -> Ints:
    """Return the mask (height, width) of an image of the truth with these ids of the classes, -1 for what is none."""
    pixels: Ints = np.append(ids, [-1, -1])[met.there[truth.load(at)]]  # the last are VOID - 1 and VOID
    return pixels


def metrics(met: Mapped) -> dict[str, float | None]:
    """Return mIoU (over the classes that are there or predicted), pixel accuracy and mean class accuracy."""
    return {
        "mIoU": defined(mean(met.matrix.iou)),
        "pixel accuracy": defined(met.matrix.accuracy),
        "mean class accuracy": defined(mean(met.matrix.recall)),
    }


def classes(met: Mapped) -> list[dict[str, Any]]:
    """Return one record for each class that is there or predicted."""
    matrix = met.matrix
    columns = zip(met.categories, matrix.truths, matrix.iou, matrix.recall, matrix.precision, strict=True)
    return [
        {"id": c.id, "name": c.name, "pixels": int(n), "IoU": float(i), "accuracy": defined(a), "precision": defined(p)}
        for c, n, i, a, p in columns
        if i >= 0
    ]
