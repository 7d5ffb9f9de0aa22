"""When a run that has a limit of time or money must end, so that what it computed is published before."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from cvjobs.clusters.machine_hours import MachineHours
from cvjobs.common.phases import Phases
from cvjobs.images.fetch import IMAGES
from cvjobs.images.loader import PATIENCE
from cvjobs.prediction.context import Context
from cvjobs.prediction.engine.throughput import Pace
from cvjobs.prediction.report import run_page
from cvjobs.prediction.scheduler import WAIT

LOADING, WAITING = "loading the model", "waiting for machines"
# What grows with the source, or is spent on waiting for machines: no measure of how fast this one ends a run.
_OTHER = {"listing", LOADING, WAITING}


class Noting(Protocol):
    """Workers that know on which machines they are."""

    def note(self, hours: MachineHours) -> None:
        """Note the machines."""


class Ending:
    """Measures what ending takes, and tells when no more than that is left.

    In the reserve are: what importing and comparing took, for publishing and the page do as much; a chunk of images in
    a decode child, as long as readers and decoders are waited for, and a batch in the model; the longest commit so far;
    twice what it took to read the parts of this run when half of the limit was over, for publishing reads them; and
    what the page may take by its own bounds. ``read`` reads those parts.
    """

    def __init__(self, context: Context, phases: Phases, read: Callable[[], object]) -> None:
        self._allowance, self._read = context.allowance, read
        self._page = run_page.longest(context)
        self._ready = sum(seconds for name, seconds in phases.spent().items() if name not in _OTHER)
        self._reading: float | None = None

    def look(self, workers: Noting, pace: Pace) -> None:
        """Note what there is to measure; cheap to call often."""
        allowance = self._allowance
        workers.note(allowance.machines)
        if not allowance.limited:
            return
        if self._reading is None and allowance.left() <= allowance.clock():
            began = time.monotonic()
            self._read()
            self._reading = 2 * (time.monotonic() - began)
        chunk = min(pace.busy["decode"] / max(pace.answered, 1) * IMAGES, 2 * PATIENCE)
        batch = pace.busy["model"] / max(pace.batches, 1)
        allowance.reserve = self._ready + chunk + batch + pace.commit + (self._reading or 0.0) + self._page

    def due(self) -> bool:
        """Return whether the run must end now."""
        return self._allowance.over(WAIT)

    def room(self) -> float:
        """Return the seconds that a shard which is given out now may take."""
        allowance = self._allowance
        return max(allowance.left() - allowance.reserve - WAIT, 0.0) if allowance.limited else math.inf
