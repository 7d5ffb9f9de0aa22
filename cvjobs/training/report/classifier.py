"""What the page of a trained classifier shows: what it takes for what, each class, where it is most wrongly sure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from cvjobs.common.errors import CvjobsError
from cvjobs.evaluation import confusion_tables
from cvjobs.evaluation.metrics import calibration, ranking
from cvjobs.evaluation.metrics.confusion import UNDEFINED, Confusion, mean
from cvjobs.html import overlays
from cvjobs.html.overlays import Overlay
from cvjobs.html.thumbnails import Thumbnail
from cvjobs.images.transform import Transform
from cvjobs.training.loop.evaluate import levels_of, normalised
from cvjobs.training.plan import TrainPlan
from cvjobs.training.report import grad_cam, multilabel
from cvjobs.training.report.training_page import BUDGET, EndedRun

MISTAKES = 24
CLASSES = 200


def values(ended: EndedRun) -> dict[str, Any]:
    """Return what the page of a trained classifier needs; see ``training_page.Section``."""
    plan, found = ended.plan, ended.found
    confusion = None if plan.multilabel else _confusion(plan, found)
    bins = [] if plan.multilabel else _bins(found)
    mistakes, why = ([], "") if plan.multilabel else _mistakes(ended, found)
    return {
        "heat": None if confusion is None else confusion_tables.heat(confusion, plan.classes, [*plan.classes, ""]),
        "confusions": []
        if confusion is None
        else confusion_tables.confusions(confusion, plan.classes, [*plan.classes, ""]),
        "classes": [] if confusion is None else _classes(plan, confusion),
        "more_classes": max(len(plan.classes) - CLASSES, 0),
        "mistakes": mistakes,
        "no_maps": why,
        "bins": bins,
        "calibration_error": calibration.error(bins),
        "balanced": None if confusion is None else mean(confusion.recall),
        "rarer": None if confusion is None else _rarer(plan, found),
        "labels": multilabel.values(ended) if plan.multilabel else None,
    }


def _rarer(plan: TrainPlan, found: pa.Table) -> dict[str, Any] | None:
    """Return how well the rarer of two classes is told from the other; None where there are more, or it is not here."""
    name = plan.classes[int(np.argmin(plan.counts))]
    truth = np.asarray(pc.equal(found["label"], name), bool)
    if len(plan.classes) != 2 or truth.all() or not truth.any():
        return None
    said = np.asarray(pc.equal(found["predicted"], name), bool)
    score = np.asarray(found["score"], np.float64)
    scores = np.where(said, score, 1 - score)
    return {
        "name": name,
        "roc_auc": ranking.roc_auc(scores, truth),
        "precision": ranking.average_precision(scores, truth),
        "share": float(truth.mean()),
    }


def _confusion(plan: TrainPlan, found: pa.Table) -> Confusion:
    numbers = {name: number for number, name in enumerate(plan.classes)}
    truth, said = (
        np.array([numbers[name] for name in found[column].to_pylist()], np.int64) for column in ("label", "predicted")
    )
    return Confusion.of(truth, said, (len(plan.classes), len(plan.classes) + 1))


def _bins(found: pa.Table) -> list[calibration.Bin]:
    right = pc.equal(found["label"], found["predicted"])
    return calibration.bins(np.asarray(found["score"]), np.asarray(right, bool))


def _classes(plan: TrainPlan, confusion: Confusion) -> list[tuple[str, int, int, str, str, float]]:
    """Return name, images in train and here, recall and precision of each class, the lowest recall first."""
    recall, precision = confusion.recall, confusion.precision
    order = np.argsort(np.where(recall == UNDEFINED, 2.0, recall), kind="stable")[:CLASSES]

    def share(value: float) -> str:
        return "–" if value == UNDEFINED else f"{value:.4f}"

    return [
        (
            plan.classes[i],
            plan.counts[i],
            int(confusion.truths[i]),
            share(recall[i]),
            share(precision[i]),
            max(float(recall[i]), 0.0),
        )
        for i in order.tolist()
    ]


def _mistakes(ended: EndedRun, found: pa.Table) -> tuple[list[dict[str, Any]], str]:
    """Return the images that are taken for another class with the highest scores, as pictures, and why without maps."""
    numbered = found.append_column("number", pa.array(range(found.num_rows)))
    wrong = numbered.filter(pc.not_equal(found["label"], found["predicted"]))
    wrong = wrong.sort_by([("score", "descending"), ("path", "ascending")]).slice(0, MISTAKES)
    if not wrong.num_rows:
        return [], ""
    images = ended.pictures(wrong["path"])
    over, why = _maps(ended, wrong, images)
    rows = zip(images, over, wrong.to_pylist(), strict=True)
    return [{"image": image, "map": own, **row} for image, own, row in rows], why


def _maps(ended: EndedRun, wrong: pa.Table, images: Sequence[Thumbnail]) -> tuple[list[Overlay | None], str]:
    """Return what speaks for the class that each image is taken for, to lie over its picture, or why there is none."""
    plan = ended.plan
    numbers = {name: number for number, name in enumerate(plan.classes)}
    taken = np.array([numbers[name] for name in wrong["predicted"].to_pylist()], np.int64)
    try:
        pixels = torch.from_numpy(ended.pixels(np.asarray(wrong["number"])))
        seen = normalised(pixels.permute(0, 3, 1, 2), *levels_of(plan.transform, pixels.device))
        found = grad_cam.heat(plan.trained(), seen, taken, BUDGET)
    except Exception as error:  # noqa: BLE001 - a page is worth more than its maps
        why = str(error) if isinstance(error, (CvjobsError, ValueError)) else f"{type(error).__name__}: {error}"
        return [None] * len(images), why.partition("\n")[0]
    return [_over(heat, image, plan.transform) for heat, image in zip(found, images, strict=True)], ""


def _over(heat: NDArray[np.float32] | None, image: Thumbnail, transform: Transform) -> Overlay | None:
    if heat is None or not image.uri:
        return None
    height, width = 1.0, 1.0
    if transform.fit == "short" and transform.size is not None:  # and cropped in the middle
        scale = transform.resize / min(image.height, image.width)
        height = min(transform.size[0] / (scale * image.height), 1.0)
        width = min(transform.size[1] / (scale * image.width), 1.0)
    return overlays.heat_map(heat, (height, width), (image.height, image.width))
