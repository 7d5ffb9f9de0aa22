"""The evaluation of labels: top-1, top-5, each class, and what is taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.common import class_labels
from cvjobs.common.categories import Category
from cvjobs.common.formatting import counted
from cvjobs.common.rules import FIRST
from cvjobs.evaluation import by_number
from cvjobs.evaluation.align import Classes, Images, named, pair_classes, pair_images
from cvjobs.evaluation.by_number import Numbered
from cvjobs.evaluation.ground_truth.types import LabelTruth
from cvjobs.evaluation.metrics import calibration
from cvjobs.evaluation.metrics.confusion import Confusion, defined, mean
from cvjobs.evaluation.metrics.objects import Bools, Floats, Ints
from cvjobs.evaluation.predictions import EvaluatedOutput, LabelFile

TOP = 5
HEADLINE = ("top-1", "top-5", "mean class accuracy", "macro F1", "expected calibration error")
COLUMNS = ("images", "predicted", "accuracy", "precision")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Labels beside the truth, as positions in ``names``: the truth's, then ``others`` that images are taken for.

    ``truth`` (images,) is of every image of the truth; ``top`` (images, 5) is what was said of it, best first: -1
    where that is none of them, or nothing was said. ``row`` (images,) is its row of the predictions, or -1.
    ``respelt`` are the labels of the truth that are another spelling of a class. ``whole`` is that of the predictions;
    ``unscored`` are images whose ``score`` is no probability.
    """

    images: Images
    classes: Classes
    names: list[str]
    others: int
    truth: Ints
    top: Ints
    score: Floats
    row: Ints
    most: int
    respelt: list[str]
    numbered: Numbered | None
    whole: bool
    unscored: list[str]

    @property
    def known(self) -> int:
        """How many of the names are the truth's."""
        return len(self.names) - self.others

    @property
    def notes(self) -> list[str]:
        """Return sentences on what was left out."""
        said = [*self.images.notes, *by_number.notes(self.numbered)]
        said += self.classes.unpredicted_note("labels", self.whole)
        if self.others:
            strange = counted(int((self.top[:, 0] >= self.known).sum()), "images")
            verb = "is" if strange.startswith("1 ") else "are"
            others = named(self.names[self.known :])
            said.append(f"labels that the truth does not have: {strange} {verb} taken for {others}")
        if self.respelt:
            said.append(f"labels of the truth that are one class in another spelling: {named(self.respelt)}")
        if self.most < TOP:
            best = f"the predictions have the best {self.most}" if self.most else "there is no prediction"
            said.append(f"no top-5: {best}")
        if self.unscored:
            count = f"{len(self.unscored):,} of {int((self.row >= 0).sum()):,} images"
            said.append(f"no calibration error: no score from 0 to 1 in {count} ({named(self.unscored, 3)})")
        return said


def meet(truth: LabelTruth, predictions: EvaluatedOutput | LabelFile) -> Labelled:
    """Bring both sides to the truth's images and labels; raises WrongUse where nothing fits."""
    images = pair_images(truth.names, truth.endings, predictions.rows, predictions.failed)
    own = _classes(truth, predictions) if predictions.rules > FIRST else {name: name for name in truth.labels}
    known = sorted(set(own.values()))
    numbers = all(label.isdecimal() and len(label) < 10 for label in known)
    categories = [Category(int(label) if numbers else at, label) for at, label in enumerate(known)]
    words = {category.name for category in predictions.categories}
    numbered = numbers and not words & set(known)
    classes = pair_classes(categories, not numbered, predictions.categories)
    position = {label: at for at, label in enumerate(known)}
    said = {c.name: classes.place[c.id] for c in predictions.categories if c.id in classes.place}
    places = _Places(said, len(known))
    tops, scores = [np.zeros((0, TOP), np.int64)], [np.zeros(0)]
    most = 0
    for table in predictions.tables(["top", "score"]):
        top, longest = _tops(table["top"].combine_chunks(), places)
        tops.append(top)
        scores.append(table["score"].to_numpy().astype(np.float64))
        most = max(most, longest)
    rows = np.flatnonzero(images.place >= 0)
    row = np.full(len(truth), -1)
    row[images.place[rows]] = rows
    got = row >= 0
    top, score = np.full((len(truth), TOP), -1), np.zeros(len(truth))
    top[got], score[got] = np.concatenate(tops)[row[got]], np.concatenate(scores)[row[got]]
    others = places.kept(top)
    unscored = np.flatnonzero(got & ~((score >= 0) & (score <= 1)))
    return Labelled(
        images=images,
        classes=classes,
        names=[*known, *others],
        others=len(others),
        truth=np.array([position[own[label]] for label in truth.labels], np.int64),
        top=top,
        score=score,
        row=row,
        whole=predictions.whole,
        unscored=[truth.names[at] for at in unscored.tolist()],
        most=TOP if most >= min(TOP, len(predictions.categories)) else most,
        respelt=class_labels.respelt(own),
        numbered=by_number.of(predictions.categories, [Category(c.id, "") for c in categories], truth.format)
        if numbered
        else None,
    )


def _classes(truth: LabelTruth, predictions: EvaluatedOutput | LabelFile) -> dict[str, str]:
    """Return the class of each label of the truth; what the model tells apart is not brought together."""
    spelt = Counter(class_labels.spelling(category.name) for category in predictions.categories)
    apart = {c.name for c in predictions.categories if spelt[class_labels.spelling(c.name)] > 1}
    return class_labels.classes(truth.labels, apart)


class _Places:
    """The positions of labels: those of the truth's classes, and from ``first`` on one for each other label."""

    def __init__(self, said: dict[str, int], first: int) -> None:
        self._said, self._first = said, first
        self._others: dict[str, int] = {}

    def of(self, label: str | None) -> int:
        """Return the position of a label, -1 for none."""
        if not label:
            return -1
        at = self._said.get(label)
        return self._first + self._others.setdefault(label, len(self._others)) if at is None else at

    def kept(self, top: Ints) -> list[str]:
        """Return the other labels that images are taken for, in order, and bring ``top`` (images, 5) to these."""
        labels = np.array([*self._others, ""], object)
        used = np.unique(top[:, 0][top[:, 0] >= self._first]) - self._first
        order = used[np.argsort(labels[used], kind="stable")] if len(used) else used
        moved = np.full(len(labels), -1)
        moved[order] = self._first + np.arange(len(order))
        other = top >= self._first
        top[other] = moved[top[other] - self._first]
        found: list[str] = labels[order].tolist()
        return found


def _tops(column: pa.ListArray, places: _Places) -> tuple[Ints, int]:
    """Return the positions (rows, 5) of the best labels of each row, -1 for none, and the most labels of a row."""
    counts = pc.list_value_length(column).fill_null(0).to_numpy()
    labels = column.flatten().field("label").dictionary_encode()
    at = np.array([places.of(label) for label in labels.dictionary.to_pylist()] or [-1], np.int64)
    of = at[labels.indices.to_numpy(zero_copy_only=False)] if len(labels) else np.zeros(0, np.int64)
    row = np.repeat(np.arange(len(counts)), counts)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    top = np.full((len(counts), TOP), -1)
    early = nth < TOP
    top[row[early], nth[early]] = of[early]
    return top, int(counts.max(initial=0))


def confusion(met: Labelled, count: int) -> Confusion:
    """Return what is taken for what among the first ``count`` names; the last column is for others, or nothing."""
    first = met.top[:, 0]
    return Confusion.of(met.truth, np.where((first < 0) | (first >= count), count, first), (count, count + 1))


def metrics(met: Labelled, matrix: Confusion) -> dict[str, float | None]:
    """Return top-1 and top-5, means over the classes, and how far the scores are from how often they are right.

    A missing image is wrong. The mean F1 is over the classes that are there or predicted, the mean class accuracy,
    which is the balanced accuracy too, over those that are there.
    """
    hits = met.top == met.truth[:, None]
    balanced = defined(mean(matrix.recall))
    return {
        "top-1": float(hits[:, 0].mean()),
        "top-5": float(hits.any(axis=1).mean()) if met.most >= TOP else None,
        "mean class accuracy": balanced,
        "macro F1": defined(mean(matrix.f1)),
        "balanced accuracy": balanced,
        "expected calibration error": None
        if met.unscored
        else _calibration(met.score[met.row >= 0], hits[met.row >= 0, 0]),
    }


def _calibration(scores: Floats, right: Bools) -> float | None:
    """Return the expected calibration error of the images with a prediction; None without one."""
    return calibration.error(calibration.bins(scores, right)) if len(scores) else None


def classes(met: Labelled, matrix: Confusion) -> list[dict[str, Any]]:
    """Return one record for each label of the truth, then for each other one that images are taken for."""
    columns = zip(met.names, matrix.truths, matrix.predictions, matrix.recall, matrix.precision, strict=True)
    return [
        {"name": name, "images": int(n), "predicted": int(p), "accuracy": defined(a), "precision": defined(s)}
        for name, n, p, a, s in columns
    ]


def said(predictions: EvaluatedOutput | LabelFile, rows: Sequence[int]) -> dict[int, str]:
    """Return the label that the predictions give to some rows."""
    return predictions.cells("label", rows)
