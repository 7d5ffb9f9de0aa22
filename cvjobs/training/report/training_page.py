"""The page of a training run: its curves, what it is trained on and with, and, at its end, what a task has found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cvjobs.clusters.machine_hours import MachineHours
from cvjobs.common import devices, phases
from cvjobs.common.devices import machine
from cvjobs.common.formatting import size
from cvjobs.common.progress import tell
from cvjobs.dataset import schema, sealed_table
from cvjobs.dataset.sealed_table import UnreadableTable
from cvjobs.html import render
from cvjobs.html.original_links import links
from cvjobs.html.thumbnails import Thumbnail, thumbnails
from cvjobs.images.decode_children import DecoderServer
from cvjobs.networks import licences
from cvjobs.networks.trainable import Trainable
from cvjobs.sources.reader import open_source
from cvjobs.storage.store import Store
from cvjobs.training import artifacts
from cvjobs.training.data.class_statistics import OPEN, Survey
from cvjobs.training.data.labels import LabelledImages
from cvjobs.training.loop import task_registry
from cvjobs.training.plan import ERRORS, HISTORY, SplitPart, TrainPlan
from cvjobs.training.recipe.recipe import OF_BOXES
from cvjobs.training.report.samples import TrainingSample
from cvjobs.training.report.training_cost import costs, used_gpu, waits
from cvjobs.training.training_summary import TrainingSummary

NAMED = 12
BUDGET = 20.0
PART = "val_loss_"  # what the column of a part of the validation loss begins with


@dataclass(frozen=True, kw_only=True)
class BegunRun:
    """A run from its first step on, with what it begins with, and images as augmentation makes them.

    ``machines`` are those of this command.
    """

    store: Store
    labelled: LabelledImages
    plan: TrainPlan
    trainable: Trainable
    survey: Survey
    samples: Sequence[TrainingSample]
    machines: MachineHours

    @property
    def history(self) -> list[dict[str, Any]]:
        """The epochs that have ended, as ``artifacts.Epoch``; a damaged file is written anew by the first step."""
        try:
            rows: list[dict[str, Any]] = sealed_table.read(self.store, HISTORY).to_pylist()
        except UnreadableTable:
            return []
        return rows


@dataclass(frozen=True, kw_only=True)
class EndedRun(BegunRun):
    """A run that has ended, and the split that its page is about: its name, its images and the task's table of it.

    ``pixels`` returns some of the images by their number, uint8 (n, height, width, 3), or a list of whole pictures.
    """

    summary: TrainingSummary
    split: str
    part: SplitPart
    pixels: Callable[[NDArray[np.int64]], Any]
    file: str
    storage: Mapping[str, str] = field(repr=False)
    confine: bool
    decoder_server: DecoderServer = field(repr=False)

    @property
    def found(self) -> pa.Table:
        """The task's row for each image of the split."""
        table = artifacts.rows(self.store, self.file)
        return table.filter(pc.equal(table["split"], self.split))

    def pictures(self, paths: pa.Array | pa.ChunkedArray) -> list[Thumbnail]:
        """Return thumbnails of listed images."""
        listing = self.labelled.listing
        at = pc.index_in(paths, value_set=listing.images["path"].combine_chunks())
        source = open_source(listing.root, listing.base, dict(self.storage), self.confine)
        rows, like = listing.images.take(at), self.plan.transform.record()
        return thumbnails(source, rows, BUDGET, decoder_server=self.decoder_server, like=like)


# What a task has to show: the values that ``train-TASK.html`` needs beside those of every training's page.
Section = Callable[[EndedRun], dict[str, Any]]


def leave(ended: EndedRun, section: Section) -> None:
    """Write the page of a run that has ended, with what its task has to show; see ``put``."""

    def page() -> str:
        values = {"summary": ended.summary, "split": ended.split, **section(ended)}
        spent = phases.shares(ended.summary.phases)
        return render.render(f"train-{ended.plan.subject.task}.html", **{**shown(ended), **values, "phases": spent})

    put(ended.store, page)


def put(store: Store, page: Callable[[], str]) -> bool:
    """Write a page, and tell whether it was; a run is worth more than its page, which is all that an error costs."""
    try:
        store.write_bytes(schema.REPORT, page().encode(errors="replace"))
    except Exception as error:  # noqa: BLE001 - see above
        why = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        tell(f"this run has no {schema.REPORT} ({why}).")
        return False
    return True


def shown(begun: BegunRun) -> dict[str, Any]:
    """Return what every page of a training shows: ``train.html``."""
    errors = artifacts.rows(begun.store, ERRORS)
    history = begun.history
    metric = task_registry.of(begun.plan).metric
    return {
        "data": begun.labelled.listing.source,
        "original": links(
            f"{begun.store.place}/{schema.REPORT}", begun.labelled.listing.root, begun.labelled.listing.base
        ),
        "curves": {
            name: [(row["epoch"], row[name]) for row in history] for name in ("train_loss", "val_loss", "metric", "lr")
        },
        "loss_parts": {
            name.removeprefix(PART): [(row["epoch"], row[name]) for row in history]
            for name in (history[-1] if history else ())
            if name.startswith(PART)
        },
        "metrics": {
            words: [(row["epoch"], row[name]) for row in history]
            for name, words in {"metric": metric, "AP50": "AP50"}.items()
            if history and name in history[-1]
        },
        "metric_name": metric,
        "backbone": begun.plan.subject.backbone,
        "survey": begun.survey,
        "open_classes": OPEN,
        "named": NAMED,
        "samples": begun.samples,
        "errors": errors.slice(0, NAMED).to_pylist(),
        "more_errors": max(errors.num_rows - NAMED, 0),
        "phases": [],  # before it has ended
        "waits": waits(begun.plan, history),
        "cost": [
            *costs(begun.plan, history, machine("cuda" if devices.gpus() else "cpu"), used_gpu()),
            *([("this command", str(cost))] if (cost := begun.machines.cost()).usd is not None else []),
        ],
        "settings": [*_settings(begun.plan, begun.trainable), *_sizes(begun.plan, begun.trainable)],
        "made": time.time(),
    }


def _settings(plan: TrainPlan, trainable: Trainable) -> list[tuple[str, str]]:
    """Return what the run was trained with, as options and values."""
    values: dict[str, Any] = {"licence": plan.licence.words} if plan.licence != licences.UNSAID else {}
    values |= {"batch-size": plan.batch, "seed": plan.seed, "precision": plan.precision}
    if trainable.inherited is not None:
        values["init-head-from-labels"] = f"{trainable.inherited} of {len(plan.classes)} classes"
    other = OF_BOXES if plan.subject.task != "detect" else ()
    recipe = {
        name.replace("_", "-"): value
        for name, value in vars(plan.recipe).items()
        if value not in ((), "", 0) and name not in other
    }
    if plan.subject.anchors is not None:
        values |= {"anchors by level": plan.subject.anchors.words, "anchors reach": plan.subject.anchors.reached}
    return [(name, _text(value)) for name, value in {**recipe, **values}.items()]


def _sizes(plan: TrainPlan, trainable: Trainable) -> list[tuple[str, str]]:
    need = [("memory", f"about {size(plan.memory)} a worker")] if plan.memory else []
    return [("parameters", f"{trainable.parameters / 1e6:,.1f} M"), *need]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ":".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
