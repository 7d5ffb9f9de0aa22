"""The page of a run that goes on: there before the first step, and written again after epochs until the run ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np

from cvjobs.common.errors import CvjobsError, OutputHeld, Stopped
from cvjobs.html import render
from cvjobs.training.data.class_statistics import Survey
from cvjobs.training.loop.loop import State
from cvjobs.training.report import training_page
from cvjobs.training.report.samples import TrainingSample, samples
from cvjobs.training.report.training_page import BegunRun
from cvjobs.training.training_summary import figure

EVERY = 10.0  # seconds between two pages, at least
RELOAD = 30  # seconds after which a browser that shows it looks again


class Live:
    """Within its context the page says where training is; an error that leaves the context is its last word."""

    def __init__(self, begun: BegunRun, drawn: Callable[[], Sequence[TrainingSample]] | None = None) -> None:
        """Prepare for a run; ``drawn`` returns the images that the page shows, those of its plan by default."""
        self._begun, self._drawn = begun, drawn or (lambda: samples(begun.plan))
        self._epochs = 0  # that the page shows
        self._written = -EVERY
        self._whole = True

    @property
    def begun(self) -> BegunRun:
        """The run, with the samples that the page shows; without any where they could not be made."""
        return self._begun

    def __enter__(self) -> Live:
        def first() -> str:
            self._begun = replace(self._begun, samples=self._drawn())
            return self._page("training")

        self._whole = training_page.put(self._begun.store, first)
        self._written = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, OutputHeld) or not self._whole:
            return  # the page of a run that was taken over is that of the later run
        ended = "stopped" if isinstance(error, (Stopped, KeyboardInterrupt)) else "failed"
        why = str(error) if isinstance(error, CvjobsError) else type(error).__name__
        training_page.put(self._begun.store, lambda: self._page(ended, why))

    def tell(self, seen: Survey) -> None:
        """Show what the images are from the next page on, which is written at the next look."""
        self._begun = replace(self._begun, survey=seen)
        self._epochs = -1

    def look(self, state: State) -> None:
        """Write the page again where epochs have ended since; cheap to call often."""
        if not self._whole or state.epoch - 1 <= self._epochs or time.monotonic() - self._written < EVERY:
            return
        self._whole = training_page.put(self._begun.store, lambda: self._page("training"))
        self._written = time.monotonic()

    def _page(self, status: str, why: str = "") -> str:
        shown = training_page.shown(self._begun)
        self._epochs = len(shown["curves"]["metric"])
        return render.render(
            "train-begun.html", **shown, **self._standing(shown["metric_name"]), status=status, why=why, reload=RELOAD
        )

    def _standing(self, metric: str) -> dict[str, Any]:
        """Return what is trained and how far it is."""
        plan, history = self._begun.plan, self._begun.history
        pace = [row["seconds"] for row in history[-3:]]
        best = max((row["metric"] for row in history), default=None)
        return {
            "subject": plan.subject,
            "weights": self._begun.trainable.weights.label,
            "epochs": plan.recipe.epochs,
            "last": history[-1] if history else None,
            "best": None if best is None else figure(metric, best),
            "left": (plan.recipe.epochs - len(history)) * float(np.mean(pace)) if pace else None,
        }
