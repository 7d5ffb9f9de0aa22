"""`cvjobs train --find-lr`: a hundred steps at ever higher rates, and the page that shows what they did to the loss."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import torch

from cvjobs import pages
from cvjobs.training import leaving
from cvjobs.training.loop import Loop, Watch
from cvjobs.training.plan import TrainPlan
from cvjobs.training.team import Alone

CURVE, PAGE = "find-lr.parquet", "find-lr.html"


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """What the search came to: ``lr`` is a value for ``--lr``, None where the loss fell at no rate."""

    lr: float | None
    steps: int
    out: str

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return dict(vars(self))

    def __str__(self) -> str:
        said = (
            "the loss fell at no rate: look at the page, and try another --batch-size or --opt"
            if self.lr is None
            else f"--lr {self.lr:.2g} is where the loss falls fastest"
        )
        return f"{said} ({self.steps} steps)\n{self.out}/{PAGE}"


def find(plan: TrainPlan, device: torch.device, watch: Watch) -> LearningRate:
    """Search from the beginning of a training, alone, and leave the curve and its page in the run's folder."""
    with tempfile.TemporaryDirectory() as nowhere:  # whatever checkpoints the run has, they are not continued
        curve = Loop(replace(plan, run=nowhere), Alone(device), watch, lambda _: None).find_rate()
    found = LearningRate(lr=curve.suggestion, steps=len(curve.rates), out=plan.run)
    leaving.table(plan.run, CURVE, pa.table({"lr": curve.rates, "loss": curve.losses}))
    html = pages.render(
        "find-lr.html",
        found=found,
        now=plan.recipe.lr,
        model=plan.subject.model,
        curve=[(math.log10(rate), loss) for rate, loss in zip(curve.rates, curve.losses, strict=True)],
        settings=[("opt", plan.recipe.opt), ("batch-size", str(plan.batch)), ("loss", plan.recipe.loss)],
        made=time.time(),
    )
    leaving.content(plan.run, PAGE, html.encode(errors="replace"))
    return found
