"""The page of a training run: its curves, what it was trained on and with, and what a task has found."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvjobs import pages
from cvjobs.dataset import layout
from cvjobs.decoding.lanes import Nursery
from cvjobs.pages.words import size
from cvjobs.storage import LocalStore
from cvjobs.training import leaving
from cvjobs.training.data import Labelled
from cvjobs.training.plan import ERRORS, HISTORY, Part, Plan
from cvjobs.training.samples import samples
from cvjobs.training.summary import Summary

NAMED = 12
SECTIONS = {"classify": "verdicts", "autoencoder": "reconstructions"}  # modules beside this one


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A run that has ended, and the split that its page is about: its name, its images and the task's table of it."""

    store: LocalStore
    labelled: Labelled
    plan: Plan
    summary: Summary
    split: str
    part: Part
    file: str
    storage: Mapping[str, str] = field(repr=False)
    nursery: Nursery = field(repr=False)

    @property
    def found(self) -> pa.Table:
        """The task's row for each image of the split."""
        table = pq.read_table(Path(self.store.place) / self.file)
        return table.filter(pc.equal(table["split"], self.split))


class Section(Protocol):
    """A module with what a task has to show; its template is ``train-TASK.html``."""

    def values(self, ended: Ended) -> dict[str, Any]:
        """Return what the template needs beside what every page of a training has."""


def leave(ended: Ended) -> None:
    """Write the page; a run is worth more than its page, so whatever goes wrong here costs the page alone."""
    try:
        leaving.content(ended.store.place, layout.REPORT, _page(ended).encode(errors="replace"))
    except Exception as error:  # noqa: BLE001 - see above
        why = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        print(f"cvjobs: this run has no {layout.REPORT} ({why}).", file=sys.stderr)


def _page(ended: Ended) -> str:
    task = ended.plan.subject.task
    section = cast(Section, importlib.import_module(f"cvjobs.training.{SECTIONS[task]}"))
    history = pq.read_table(Path(ended.store.place) / HISTORY).to_pylist()
    errors = pq.read_table(Path(ended.store.place) / ERRORS)
    return pages.render(
        f"train-{task}.html",
        summary=ended.summary,
        data=ended.labelled.listing.source,
        curves={
            name: [(row["epoch"], row[name]) for row in history]
            for name in ("train_loss", "val_loss", "metric", "lr", "images_per_second")
        },
        settings=[*_settings(ended.plan, ended.summary), *_sizes(ended.summary)],
        split=ended.split,
        samples=samples(ended.plan),
        errors=errors.slice(0, NAMED).to_pylist(),
        more_errors=max(errors.num_rows - NAMED, 0),
        made=time.time(),
        **section.values(ended),
    )


def _settings(plan: Plan, summary: Summary) -> list[tuple[str, str]]:
    """Return what the run was trained with, as options and values."""
    values = {"batch-size": plan.batch, "seed": plan.seed, "precision": plan.precision}
    if summary.inherited is not None:
        values["init-head-from-labels"] = f"{summary.inherited} of {summary.classes} classes"
    recipe = {name.replace("_", "-"): value for name, value in vars(plan.recipe).items() if value not in ((), "", 0)}
    return [(name, _text(value)) for name, value in {**recipe, **values}.items()]


def _sizes(summary: Summary) -> list[tuple[str, str]]:
    need = [("memory", f"about {size(summary.memory)} a worker")] if summary.memory else []
    return [("parameters", f"{summary.parameters / 1e6:,.1f} M"), *need]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ":".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
