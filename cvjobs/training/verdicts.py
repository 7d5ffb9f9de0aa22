"""What the page of a trained classifier shows: what it takes for what, each class, where it is most wrongly sure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.evaluation import tables
from cvjobs.metrics import calibration
from cvjobs.metrics.confusion import UNDEFINED, Confusion
from cvjobs.pages.thumbnails import thumbnails
from cvjobs.source import open_source
from cvjobs.training.page import Ended
from cvjobs.training.plan import Plan

MISTAKES = 24
BUDGET = 20.0
CLASSES = 200


def values(ended: Ended) -> dict[str, Any]:
    """See ``page.Section``."""
    plan, found = ended.plan, ended.found
    confusion = None if plan.several else _confusion(plan, found)
    bins = [] if plan.several else _bins(found)
    return {
        "heat": None if confusion is None else tables.heat(confusion.counts, plan.classes, [*plan.classes, ""]),
        "confusions": []
        if confusion is None
        else tables.confusions(confusion.counts, plan.classes, [*plan.classes, ""]),
        "classes": [] if confusion is None else _classes(plan, confusion),
        "more_classes": max(len(plan.classes) - CLASSES, 0),
        "mistakes": [] if plan.several else _mistakes(ended, found),
        "bins": bins,
        "calibration_error": calibration.error(bins),
    }


def _confusion(plan: Plan, found: pa.Table) -> Confusion:
    numbers = {name: number for number, name in enumerate(plan.classes)}
    confusion = Confusion.empty(len(plan.classes))
    truth, said = (
        np.array([numbers[name] for name in found[column].to_pylist()], np.int64) for column in ("label", "predicted")
    )
    confusion.add(truth, said)
    return confusion


def _bins(found: pa.Table) -> list[calibration.Bin]:
    right = pc.equal(found["label"], found["predicted"])
    return calibration.bins(np.asarray(found["score"]), np.asarray(right, bool))


def _classes(plan: Plan, confusion: Confusion) -> list[tuple[str, int, int, str, str, float]]:
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


def _mistakes(ended: Ended, found: pa.Table) -> list[dict[str, Any]]:
    """Return the images that are taken for another class with the highest scores, as pictures."""
    wrong = found.filter(pc.not_equal(found["label"], found["predicted"]))
    wrong = wrong.sort_by([("score", "descending"), ("path", "ascending")]).slice(0, MISTAKES)
    if not wrong.num_rows:
        return []
    listing = ended.labelled.listing
    at = pc.index_in(wrong["path"], value_set=listing.images["path"].combine_chunks())
    source = open_source(listing.root, listing.base, dict(ended.storage))
    images = thumbnails(source, listing.images.take(at), BUDGET, nursery=ended.nursery)
    return [{"image": image, **row} for image, row in zip(images, wrong.to_pylist(), strict=True)]
