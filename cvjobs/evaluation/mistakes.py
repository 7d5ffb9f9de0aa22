"""The worst mistakes among boxes and masks: sure of what is not there, and blind to what is large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cvjobs.evaluation import eval_pictures
from cvjobs.evaluation.boxes import Met
from cvjobs.evaluation.ground_truth.types import ObjectTruth
from cvjobs.evaluation.metrics.coco_ap import CountedDetections
from cvjobs.evaluation.metrics.objects import Ints, Objects
from cvjobs.evaluation.metrics.overlaps import overlapping
from cvjobs.evaluation.predictions import EvaluatedOutput
from cvjobs.html import overlays, palette
from cvjobs.html.overlays import Shape
from cvjobs.storage.storage_options import Options

MOST = 12  # of each kind
AN_IMAGE = 2
SIZE = 1024  # pixels of the pictures that pieces are cut from
NEAR = 0.1


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One object: its ``row`` of the predictions, what went wrong in words, and the shapes in the image."""

    row: int
    what: str
    why: str
    shapes: list[Shape]


def false_alarms(truth: ObjectTruth, met: Met, found: CountedDetections) -> list[Mistake]:
    """Return the detections with the highest scores that are wrong at IoU 0.5, at most two an image."""
    wrong = np.flatnonzero(found.wrong)
    wrong = wrong[np.argsort(-found.score[wrong], kind="stable")]
    row_of = _rows(met)
    chosen = _spread(found.row[wrong], met.detections.image)
    mistakes = []
    for detection in chosen.tolist():
        image = int(met.detections.image[detection])
        own = _shape(truth, met.detections, detection, float(met.detections.score[detection]))
        there = [_shape(truth, met.truths, at, None) for at in np.flatnonzero(met.truths.image == image).tolist()]
        why = _why(truth, met, detection)
        score = f"{own.label} {own.score:.2f}"
        mistakes.append(Mistake(row=int(row_of[image]), what=score, why=why, shapes=[own, *there]))
    return mistakes


def misses(truth: ObjectTruth, met: Met, found: CountedDetections, score: float) -> list[Mistake]:
    """Return the largest objects that no detection of at least this score finds at IoU 0.5, at most two an image."""
    seen = found.truth[found.right & (found.score >= score)]
    missed = np.ones(len(met.truths), np.bool_)
    missed[seen] = False
    missed &= ~met.truths.ignored & (met.truths.area > 0)
    row_of = _rows(met)
    missed &= row_of[met.truths.image] >= 0 if len(met.truths) else False
    candidates = np.flatnonzero(missed)
    candidates = candidates[np.argsort(-met.truths.area[candidates], kind="stable")]
    mistakes = []
    for at in _spread(candidates, met.truths.image).tolist():
        image = int(met.truths.image[at])
        near = np.flatnonzero((met.detections.image == image) & (met.detections.score >= score)).tolist()
        said = [_shape(truth, met.detections, row, float(met.detections.score[row])) for row in near]
        own = _shape(truth, met.truths, at, None)
        mistakes.append(Mistake(row=int(row_of[image]), what=own.label, why="not found", shapes=[own, *said]))
    return mistakes


def drawn(output: EvaluatedOutput, mistakes: list[Mistake], options: Options) -> list[dict[str, Any]]:
    """Return the piece of the image around each mistake, with what was found there and, dashed, what is there."""
    shown = eval_pictures.read(output, [mistake.row for mistake in mistakes], SIZE, options)
    found = []
    for mistake in mistakes:
        image = shown[mistake.row]
        box = mistake.shapes[0].box
        near = [shape for shape in mistake.shapes if _touch(shape.box, box)]
        piece, size, shapes = eval_pictures.around(image, box, near)
        over = overlays.draw(shapes, size, (piece.height, piece.width)) if piece.uri else None
        legend = list(dict.fromkeys((palette.place(s.category_id), s.label, "") for s in shapes)) if over else []
        note = f"{mistake.what}: {mistake.why}"
        found.append({"path": image.path, "image": piece, "over": over, "note": note, "legend": legend})
    return found


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _rows(met: Met) -> Ints:
    """Return the row of the predictions of each image of the truth, -1 where it has none."""
    rows = np.full(met.images.truth, -1)
    known = np.flatnonzero(met.images.place >= 0)
    rows[met.images.place[known]] = known
    return rows


def _spread(candidates: Ints, image: Ints) -> Ints:
    """Return the first candidates, at most two of an image."""
    chosen: list[int] = []
    counts: dict[int, int] = {}
    for candidate in candidates.tolist():
        of = int(image[candidate])
        counts[of] = counts.get(of, 0) + 1
        if counts[of] <= AN_IMAGE:
            chosen.append(candidate)
        if len(chosen) == MOST:
            break
    return np.array(chosen, np.int64)


def _shape(truth: ObjectTruth, objects: Objects, at: int, score: float | None) -> Shape:
    category = truth.categories[int(objects.category[at])]
    x, y, width, height = objects.boxes[at].tolist()
    return Shape(
        category_id=category.id,
        label=category.name or str(category.id),
        box=(x, y, x + width, y + height),
        score=score,
        rle="" if objects.masks is None else objects.masks[at]["counts"].decode("ascii", "replace"),
        dashed=score is None,
    )


def _why(truth: ObjectTruth, met: Met, detection: int) -> str:
    """Return in words how a wrong detection is wrong, by the truth that it overlaps most."""
    one = met.detections.take(np.array([detection]))
    pairs = overlapping(met.truths, one, (met.truths.image, one.image), NEAR)
    if not len(pairs.truth):
        return "nothing is there"
    same = met.truths.category[pairs.truth] == one.category[0]
    if same.any() and pairs.iou[same][-1] >= 0.5:
        return "found a second time"
    if pairs.iou[-1] >= 0.5:
        category = truth.categories[int(met.truths.category[pairs.truth[-1]])]
        return f"it is {category.name or category.id}"
    if same.any():
        return f"badly placed, IoU {pairs.iou[same][-1]:.2f}"
    return "nothing of the kind is there"
