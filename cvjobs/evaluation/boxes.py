"""The evaluation of boxes and of masks: predictions and truth on common positions, the numbers, the curves."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cvjobs.common import class_labels
from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import counted
from cvjobs.common.rules import FIRST
from cvjobs.evaluation import box_pixels
from cvjobs.evaluation.align import Classes, Images, by_place, named, pair_classes, pair_images
from cvjobs.evaluation.ground_truth.records import place_of
from cvjobs.evaluation.ground_truth.types import ObjectTruth
from cvjobs.evaluation.metrics import coco_ap
from cvjobs.evaluation.metrics.coco_ap import METRICS, RECALLS, CountedDetections, DetectionScores
from cvjobs.evaluation.metrics.confusion import Confusion
from cvjobs.evaluation.metrics.matching import match
from cvjobs.evaluation.metrics.objects import Detections, Ints, Truths
from cvjobs.evaluation.metrics.overlaps import overlapping
from cvjobs.evaluation.predictions import EvaluatedOutput, Predictions, ResultsFile

BY_SIZE = ("small", "medium", "large")
CURVES = {"IoU 0.50": 0, "IoU 0.75": 5}


@dataclass(frozen=True, kw_only=True)
class Met:
    """Predictions and truth with the same numbers of images and of categories; ``sized`` objects have areas.

    ``strange`` are the ids of the ``left_out`` detections of classes that the truth does not have; ``whole`` is that of
    the predictions.
    """

    images: Images
    classes: Classes
    truths: Truths
    detections: Detections
    left_out: int
    strange: Sequence[str] = ()
    said: Sequence[str] = ()
    sized: bool = True
    whole: bool = True

    @property
    def notes(self) -> list[str]:
        """Return sentences on what was left out."""
        said = [*self.said, *self.images.notes]
        if self.left_out:
            names = named(self.classes.unknown or self.strange)
            said.append(
                f"left out: {counted(self.left_out, 'detections')} of classes that the truth does not have ({names})"
            )
        said += self.classes.unpredicted_note("classes", self.whole)
        if self.truths.unnumbered.any():
            said.append("the annotation with the id 0 counts as not found, as in COCO's API: number them from 1")
        if not len(self.truths.ignored):
            said.append("the truth has no object in these images: there is nothing to find, and no AP")
        if free := int(self.truths.ignored.sum()):
            whole = len(self.truths.ignored)
            said.append(f"objects that may be found or not, as they are crowds or difficult: {free:,} of {whole:,}")
        return said


def worded(truth: ObjectTruth, predictions: EvaluatedOutput | ResultsFile) -> EvaluatedOutput | ResultsFile:
    """Return predictions whose classes are called as the truth's; raises WrongUse for numbers that say nothing there.

    Numbers are names where the truth has such names, and else ids where the truth has ids of the same kind.
    """
    own = [replace(c, name=truth.aliases.get(c.name, c.name)) for c in predictions.categories]
    numbered = predictions.numbered if isinstance(predictions, ResultsFile) else ""
    if numbered and not {c.name for c in own} & {category.name for category in truth.categories}:
        if truth.named and truth.format not in (("yolo",) if numbered == "places" else ("yolo", "coco")):
            raise WrongUse(
                f"{predictions.place} has numbers for classes, which the truth has by name: "
                "name them with --labels FILE, one a line from number 0."
            )
        own = []
    return replace(predictions, categories=own) if own != predictions.categories else predictions


def by_name(truth: ObjectTruth, predictions: Predictions) -> ObjectTruth:
    """Return the truth with one category for each name in any spelling, where the classes are paired by name."""
    if not (truth.named and predictions.categories and predictions.rules > FIRST):
        return truth
    spelt = Counter(class_labels.spelling(category.name) for category in predictions.categories)
    apart = {c.name for c in predictions.categories if spelt[class_labels.spelling(c.name)] > 1}
    own = class_labels.classes([category.name for category in truth.categories if category.name], apart)
    first: dict[str, int] = {}
    of = np.array([first.setdefault(own.get(c.name, f"\0{at}"), at) for at, c in enumerate(truth.categories)], np.int64)
    kept = np.unique(of)
    if len(kept) == len(of):
        return truth
    twice = sorted({truth.categories[at].name for at in np.flatnonzero(of != np.arange(len(of))).tolist()})
    return replace(
        truth,
        categories=[truth.categories[at] for at in kept.tolist()],
        objects=replace(truth.objects, category=np.searchsorted(kept, of[truth.objects.category])),
        notes=[*truth.notes, f"the truth has several categories of one name, which are one class: {named(twice)}"],
    )


def meet(truth: ObjectTruth, predictions: EvaluatedOutput | ResultsFile) -> Met:
    """Bring both sides to the truth's numbers of images and categories; raises WrongUse where nothing fits."""
    found = predictions.detections()
    if isinstance(predictions, ResultsFile) and not predictions.rows:
        images = _by_number(truth, predictions)
    else:
        images = pair_images(truth.names, truth.endings, predictions.rows, predictions.failed)
    classes = pair_classes(truth.categories, truth.named, predictions.categories)
    image = images.place[found.image] if len(found) else found.image
    category = _places(found.category, classes.place)
    known = image >= 0
    kept = np.flatnonzero(known & (category >= 0))
    some = replace(found, image=image, category=category).take(kept)
    pixels = box_pixels.of(truth, predictions, images, some)
    given = pixels.truths
    return Met(
        images=images,
        classes=classes,
        truths=given,
        detections=pixels.detections
        if given.masks is not None
        else replace(pixels.detections, masks=None, area=_box_areas(pixels.detections)),
        left_out=int(known.sum()) - len(kept),
        strange=[str(id_) for id_ in np.unique(found.category[known & (category < 0)]).tolist()],
        said=[*truth.notes, *pixels.notes, *_from_one(truth, predictions, found.category)],
        sized=pixels.sized,
        whole=predictions.whole,
    )


def _from_one(truth: ObjectTruth, predictions: EvaluatedOutput | ResultsFile, ids: Ints) -> list[str]:
    """Return a sentence where ids that begin at 1 seem to be compared with YOLO's, which begin at 0."""
    if predictions.categories or truth.format != "yolo" or not len(ids):
        return []
    if not (truth.named and ids.min() >= 1 and ids.max() == len(truth.categories)):
        return []
    return [
        f"category ids of the predictions go from {ids.min()} to {ids.max()}, the truth's from 0 to {ids.max() - 1}: "
        "they are compared as they are; if they count from 1, give the predictions a list `categories` with names"
    ]


def boxes_of(met: Met) -> Met:
    """Return the same without masks."""
    plain = replace(met.detections, masks=None, area=_box_areas(met.detections))
    return replace(met, truths=replace(met.truths, masks=None), detections=plain)


def score(truth: ObjectTruth, met: Met) -> DetectionScores:
    """Return the numbers."""
    return coco_ap.evaluate(met.truths, met.detections, len(truth.categories))


def metrics(scores: DetectionScores, sized: bool) -> dict[str, float | None]:
    """Return COCO's twelve numbers and VOC's; -1 is what COCO's API says where there is nothing to measure.

    Those by size are None where no image has a size.
    """
    return _averages(scores, slice(None), sized)


def _averages(scores: DetectionScores, category: int | slice, sized: bool) -> dict[str, float | None]:
    return {
        name: scores.average(name, category) if sized or name.rpartition("_")[2] not in BY_SIZE else None
        for name in (*METRICS, "VOC_AP50")
    }


def classes(truth: ObjectTruth, met: Met, scores: DetectionScores) -> list[dict[str, Any]]:
    """Return one record for each category of the truth."""
    predicted = np.bincount(met.detections.category, minlength=len(truth.categories)).tolist()
    return [
        {
            "id": category.id,
            "name": name,
            "truths": int(scores.counted[at]),
            "predictions": predicted[at],
            **_averages(scores, at, met.sized),
        }
        for at, (category, name) in enumerate(zip(truth.categories, names(truth), strict=True))
    ]


def names(truth: ObjectTruth) -> list[str]:
    """Return what each category of the truth is called: its name, or else its id."""
    return [category.name or str(category.id) for category in truth.categories]


def curves(scores: DetectionScores) -> dict[str, Any]:
    """Return precision at 101 recalls at two IoUs and over all ten: means over the categories with ground truth."""
    defined = np.flatnonzero(scores.counted)
    precision = scores.precision[:, :, defined, 0]
    named = {name: precision[at].mean(axis=1) for name, at in CURVES.items()} if len(defined) else {}
    if len(defined):
        named["IoU 0.50:0.95"] = precision.mean(axis=(0, 2))
    return {"recall": RECALLS.round(2).tolist(), **{name: values.tolist() for name, values in named.items()}}


def operating_point(found: CountedDetections, counted: int) -> dict[str, float]:
    """Return the score from which on all detections together have the best F1 at IoU 0.5, and what it is there."""
    order = np.argsort(-found.score, kind="stable")
    rights, wrongs = np.cumsum(found.right[order]), np.cumsum(found.wrong[order])
    # Equal scores are kept or left together.
    last = np.flatnonzero(np.diff(found.score[order], append=-np.inf))
    f1 = 2 * rights[last] / np.maximum(rights[last] + wrongs[last] + counted, 1)
    if not len(last) or not counted:
        return {"score": 0.0, "F1": 0.0, "precision": 0.0, "recall": 0.0}
    at = last[int(np.argmax(f1))]
    return {
        "score": float(found.score[order][at]),
        "F1": float(f1.max()),
        "precision": float(rights[at] / max(rights[at] + wrongs[at], 1)),
        "recall": float(rights[at] / counted),
    }


def confusion(truth: ObjectTruth, met: Met, least: float) -> Confusion:
    """Return what is found as what (K + 1, K + 1), of detections with at least this score at IoU 0.5 of any class.

    Rows are the truth and at last nothing; columns are detections and at last nothing.
    """
    count = len(truth.categories)
    some = np.flatnonzero(met.detections.score >= least)
    found = met.detections.take(some[np.lexsort((-met.detections.score[some], met.detections.image[some]))])
    pairs = overlapping(met.truths, found, (met.truths.image, found.image), 0.5)
    matches = match(pairs, found.image, met.truths, met.truths.ignored[:, None], np.array([0.5]))
    mate = np.full(len(found), -1)
    mate[matches.detection] = matches.truth
    given = np.append(met.truths.category, count)[mate]
    real = ~np.append(met.truths.ignored, False)[mate]
    missed = ~met.truths.ignored
    missed[mate[mate >= 0]] = False
    unseen = met.truths.category[missed]
    rows = np.concatenate([given[real], unseen])
    columns = np.concatenate([found.category[real], np.full(len(unseen), count)])
    return Confusion.of(rows, columns, (count + 1, count + 1))


def _by_number(truth: ObjectTruth, predictions: ResultsFile) -> Images:
    """Pair images by their ids, or by their names without endings where a results file has those for ids."""
    known = {id_: at for at, id_ in enumerate(truth.numbers)}
    place = [place_of(known, id_) for id_ in predictions.numbers]
    stems = any(at < 0 and isinstance(id_, str) for at, id_ in zip(place, predictions.numbers, strict=True))
    if place and (stems or max(place) < 0):
        return _by_stem(truth, predictions)
    return by_place(np.array(place, np.int64), truth.names, [f"image_id {id_}" for id_ in predictions.numbers])


def _by_stem(truth: ObjectTruth, predictions: ResultsFile) -> Images:
    """Pair images by names; a name of digits may have lost the zeros before them, where one image alone has it."""
    names = list(truth.names)
    given = [str(id_) for id_ in predictions.numbers]
    if not set(given) & set(names):
        names = [posixpath.splitext(name)[0] for name in names]
    digits = [base for base in map(posixpath.basename, names) if base.isascii() and base.isdigit()]
    counts = Counter(base.lstrip("0") or "0" for base in digits)
    whole = {number: base for base in digits if counts[number := base.lstrip("0") or "0"] == 1}
    return pair_images(names, True, [whole.get(name, name) for name in given], [])


def _places(ids: Ints, place: dict[int, int]) -> Ints:
    """Return the position of each id, -1 where it has none."""
    known = np.array(sorted(place), np.int64)
    if not len(known) or not len(ids):
        return np.full(len(ids), -1)
    at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    positions = np.array([place[i] for i in known.tolist()])
    return np.where(known[at] == ids, positions[at], -1)


def _box_areas(found: Detections) -> Any:
    return found.boxes[:, 2] * found.boxes[:, 3]
