"""The page of a training run: its curves, what it takes for what, each class, and where it is most wrongly sure."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvjobs import pages
from cvjobs.dataset import layout
from cvjobs.decoding.lanes import Nursery
from cvjobs.evaluation import tables
from cvjobs.metrics import calibration
from cvjobs.metrics.confusion import UNDEFINED, Confusion
from cvjobs.pages.thumbnails import thumbnails
from cvjobs.source import open_source
from cvjobs.storage import LocalStore
from cvjobs.training import leaving
from cvjobs.training.data import Labelled
from cvjobs.training.plan import ERRORS, HISTORY, PREDICTIONS, Plan
from cvjobs.training.samples import samples
from cvjobs.training.summary import Summary

MISTAKES = 24
BUDGET = 20.0
CLASSES = 200
NAMED = 12


def leave(
    store: LocalStore,
    labelled: Labelled,
    plan: Plan,
    summary: Summary,
    storage: Mapping[str, str],
    nursery: Nursery,
) -> None:
    """Write the page; a run is worth more than its page, so whatever goes wrong here costs the page alone."""
    try:
        html = _page(store, labelled, plan, summary, storage, nursery)
        leaving.content(store.place, layout.REPORT, html.encode(errors="replace"))
    except Exception as error:  # noqa: BLE001 - see above
        why = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        print(f"cvjobs: this run has no {layout.REPORT} ({why}).", file=sys.stderr)


def _page(
    store: LocalStore,
    labelled: Labelled,
    plan: Plan,
    summary: Summary,
    storage: Mapping[str, str],
    nursery: Nursery,
) -> str:
    history = pq.read_table(Path(store.place) / HISTORY).to_pylist()
    found = pq.read_table(Path(store.place) / PREDICTIONS)
    found = found.filter(pc.equal(found["split"], "test" if summary.test_metric is not None else "val"))
    errors = pq.read_table(Path(store.place) / ERRORS)
    confusion = None if plan.several else _confusion(plan, found)
    bins = [] if plan.several else _bins(found)
    return pages.render(
        "train.html",
        summary=summary,
        data=labelled.listing.source,
        curves={
            name: [(row["epoch"], row[name]) for row in history]
            for name in ("train_loss", "val_loss", "metric", "lr", "images_per_second")
        },
        settings=_settings(plan),
        split=found["split"][0].as_py(),
        heat=None if confusion is None else tables.heat(confusion.counts, plan.classes, [*plan.classes, ""]),
        confusions=[] if confusion is None else tables.confusions(confusion.counts, plan.classes, [*plan.classes, ""]),
        classes=[] if confusion is None else _classes(plan, confusion),
        more_classes=max(len(plan.classes) - CLASSES, 0),
        mistakes=[] if plan.several else _mistakes(labelled, found, storage, nursery),
        samples=samples(plan),
        bins=bins,
        calibration_error=calibration.error(bins),
        errors=errors.slice(0, NAMED).to_pylist(),
        more_errors=max(errors.num_rows - NAMED, 0),
        made=time.time(),
    )


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


def _mistakes(
    labelled: Labelled, found: pa.Table, storage: Mapping[str, str], nursery: Nursery
) -> list[dict[str, Any]]:
    """Return the images that are taken for another class with the highest scores, as pictures."""
    wrong = found.filter(pc.not_equal(found["label"], found["predicted"]))
    wrong = wrong.sort_by([("score", "descending"), ("path", "ascending")]).slice(0, MISTAKES)
    if not wrong.num_rows:
        return []
    listing = labelled.listing
    at = pc.index_in(wrong["path"], value_set=listing.images["path"].combine_chunks())
    source = open_source(listing.root, listing.base, dict(storage))
    images = thumbnails(source, listing.images.take(at), BUDGET, nursery=nursery)
    return [{"image": image, **row} for image, row in zip(images, wrong.to_pylist(), strict=True)]


def _settings(plan: Plan) -> list[tuple[str, str]]:
    """Return what the run was trained with, as options and values."""
    values = {"batch-size": plan.batch, "seed": plan.seed, "precision": plan.precision}
    recipe = {name.replace("_", "-"): value for name, value in vars(plan.recipe).items() if value not in ((), "", 0)}
    return [(name, _text(value)) for name, value in {**recipe, **values}.items()]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ":".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
