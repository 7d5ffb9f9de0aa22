"""What the page of a classifier of several labels shows: each class on its own, and where it is most wrongly sure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cvjobs.evaluation.metrics import calibration, ranking
from cvjobs.evaluation.metrics.ranking import Cut
from cvjobs.training.report.training_page import EndedRun

PICTURED = 12
CLASSES = 200
HALF = 0.5


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """A class: its images in train and here; the average precision, and two thresholds, None where none shows it."""

    name: str
    trained: int
    here: int
    precision: float | None
    half: Cut | None
    best: Cut | None


def values(ended: EndedRun) -> dict[str, Any]:
    """Return what ``train-multilabel.html`` needs."""
    found, truth = ended.found, ended.part.labels
    scores = np.array(found["scores"].to_pylist(), np.float32).reshape(truth.shape)
    bins = calibration.bins(scores.ravel(), truth.ravel() > 0)
    return {
        "rows": _rows(ended, scores, truth),
        "more": max(truth.shape[1] - CLASSES, 0),
        "exact": float(((scores > HALF) == (truth > 0)).all(1).mean()),
        "all": ranking.cut(scores.ravel(), truth.ravel(), HALF),
        "best": ranking.best_cut(scores.ravel(), truth.ravel()),
        "bins": bins,
        "calibration_error": calibration.error(bins),
        "invented": _pictures(ended, np.where(truth > 0, 0, scores), found),
        "missed": _pictures(ended, np.where(truth > 0, 1 - scores, 0), found),
    }


def _rows(ended: EndedRun, scores: NDArray[np.float32], truth: NDArray[np.integer]) -> list[LabelRow]:
    """Return the classes, the lowest average precision first and those that no image shows last."""
    plan = ended.plan
    rows = [
        LabelRow(
            name=name,
            trained=plan.counts[number],
            here=int(shown.sum()),
            precision=ranking.average_precision(own, shown) if shown.any() else None,
            half=ranking.cut(own, shown, HALF) if shown.any() else None,
            best=ranking.best_cut(own, shown) if shown.any() else None,
        )
        for number, (name, own, shown) in enumerate(zip(plan.classes, scores.T.astype(float), truth.T, strict=True))
    ]
    return sorted(rows, key=lambda row: 2.0 if row.precision is None else row.precision)[:CLASSES]


def _pictures(ended: EndedRun, wrong: NDArray[np.floating], found: pa.Table) -> list[dict[str, Any]]:
    """Return the images that are the most wrong in one class, by how much in each (n, classes), as pictures."""
    worst = wrong.argmax(1)
    far = wrong[np.arange(len(wrong)), worst]
    order = np.argsort(-far, kind="stable")[:PICTURED]
    order = order[far[order] > HALF]
    rows = found.take(pa.array(order))
    images = ended.pictures(rows["path"])
    return [
        {"image": image, "path": row["path"], "name": ended.plan.classes[worst[at]], "labels": row["label"]}
        | {"score": row["scores"][worst[at]]}
        for image, row, at in zip(images, rows.to_pylist(), order.tolist(), strict=True)
    ]
