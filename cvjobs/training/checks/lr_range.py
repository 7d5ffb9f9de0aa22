"""`cvjobs train --find-lr`: a hundred steps at ever higher rates, and the page that shows what they did to the loss."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch

from cvjobs.common import tabular
from cvjobs.common.errors import Stopped
from cvjobs.common.tabular import Tabular
from cvjobs.dataset import sealed_table
from cvjobs.html import render
from cvjobs.storage.storage_options import Options
from cvjobs.storage.store import begun_store
from cvjobs.training import artifacts
from cvjobs.training.checks import batch_size
from cvjobs.training.loop import task_registry
from cvjobs.training.loop.feed import Feed
from cvjobs.training.loop.loop import State, Watch
from cvjobs.training.loop.process_group import Alone
from cvjobs.training.loop.step import Learner, StepBatch
from cvjobs.training.plan import TrainPlan
from cvjobs.training.recipe import lr_finder

CURVE, PAGE = "find-lr.parquet", "find-lr.html"


@dataclass(frozen=True, kw_only=True)
class LearningRate(Tabular):
    """What the search came to: ``lr`` is a value for ``--lr``, None where the loss fell at no rate."""

    lr: float | None
    steps: int
    out: str
    storage: Options = field(default_factory=dict, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return {"lr": self.lr, "steps": self.steps, "out": self.out}

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """Return the curve, one row a step: the rate and the loss."""
        return tabular.chosen(artifacts.rows(begun_store(self.out, self.storage), CURVE), columns)

    def __str__(self) -> str:
        said = (
            "the loss fell at no rate: look at the page, and try another --batch-size or --opt"
            if self.lr is None
            else f"--lr {self.lr:.2g} is where the loss falls fastest"
        )
        return f"{said} ({self.steps} steps)\n{self.out}/{PAGE}"


def find(plan: TrainPlan, device: torch.device, watch: Watch, check: Callable[[], None] = lambda: None) -> LearningRate:
    """Search from the beginning of a training, alone, and leave the curve and its page in the run's folder.

    ``check`` may refuse to leave them by raising.

    Raises:
        Stopped: ``watch`` asks for it.
        JobFailed: the memory does not suffice.
    """
    curve = _curve(plan, device, watch)
    found = LearningRate(lr=curve.suggestion, steps=len(curve.rates), out=plan.run, storage=plan.storage)
    run = plan.store(check)
    sealed_table.write(run, CURVE, pa.table({"lr": curve.rates, "loss": curve.losses}))
    html = render.render(
        "find-lr.html",
        found=found,
        now=plan.recipe.lr,
        model=plan.subject.model,
        curve=[(math.log10(rate), loss) for rate, loss in zip(curve.rates, curve.losses, strict=True)],
        settings=[("opt", plan.recipe.opt), ("batch-size", str(plan.batch)), ("loss", plan.recipe.loss)],
        made=time.time(),
    )
    run.write_bytes(PAGE, html.encode(errors="replace"))
    return found


def _curve(plan: TrainPlan, device: torch.device, watch: Watch) -> lr_finder.RateCurve:
    """Make steps at ever higher rates, in terms of ``--lr``; nothing of the training is kept."""
    team, task = Alone(device), task_registry.of(plan)
    feed = Feed(plan, team, task)
    learner = Learner.of(plan, team, feed.steps)
    learner.train()
    began = time.monotonic()

    def step(rate: float) -> float:
        parts = learner.step(next(stream), task.loss, rate / plan.recipe.lr)
        loss = sum(value.double().item() * images for value, images in parts) / sum(images for _, images in parts)
        state = State(
            epoch=1,
            epochs=1,
            done=learner.done,
            total=lr_finder.STEPS,
            loss=loss,
            metric=None,
            rate=learner.done * plan.batch / (time.monotonic() - began),
        )
        if watch(state):
            raise Stopped("Stopped: the same command starts the search for a rate again.")
        return loss

    with batch_size.explained(plan), closing(_endless(feed)) as stream:
        return lr_finder.find(step)


def _endless(feed: Feed) -> Generator[StepBatch, None, None]:
    """Yield the batches of epoch after epoch, augmented as those of the first one."""
    augment = feed.augmentation(0)
    for epoch in itertools.count():
        yield from feed.batches(epoch, 0, augment)
