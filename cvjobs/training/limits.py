"""The limits of time and money of one training: when it must stop to be at rest before, and how that is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cvjobs.clusters.allowance import Allowance
from cvjobs.common.errors import Stopped
from cvjobs.common.phases import Phases
from cvjobs.common.signals import Stop
from cvjobs.training.loop.loop import VALIDATING, State

# What is as long for more images, or the steps themselves: no measure of how fast a command ends.
STARTING, WAITING = "starting", "waiting for machines"
_OTHER = {"listing", "decoding", STARTING, "training", "saving", VALIDATING}


class TrainingLimits:
    """What a training may still spend; what getting ready took is in the reserve for ending, beside a checkpoint."""

    def __init__(self, allowance: Allowance, phases: Phases, stop: Stop) -> None:
        self.allowance, self._phases, self.stop = allowance, phases, stop
        self._workers = False

    def begin(self) -> None:
        """Note what getting ready took: training begins."""
        self.allowance.reserve = sum(seconds for name, seconds in self._phases.spent().items() if name not in _OTHER)

    def workers_began(self) -> None:
        """Note what starting workers took, for they are there now."""
        if not self._workers:
            self._workers = True
            self.allowance.reserve += self._phases.spent().get(STARTING, 0.0)

    def check_start(self) -> None:
        """Raise Stopped where a limit is over before training."""
        if self.allowance.over():
            raise Stopped(self.allowance.nothing("the first step"))

    def over_without_workers(self) -> bool:
        """Return whether a training must stop now that has no workers; before it had some, as ``check_start``."""
        if not self._workers:
            self.check_start()
        return self.allowance.over()

    def over(self, state: State) -> bool:
        """Return whether a training that is there must stop at this look."""
        return self.allowance.over(state.stopping)

    def rest(self, share: float) -> None:
        """Raise Stopped where no time is left for what follows training.

        ``share`` is how many images are tested on, as a share of those that one validation had.
        """
        validated = self._phases.spent().get(VALIDATING, 0.0)
        if self.allowance.over(share * validated):
            raise Stopped("Stopped before the test and the page: the same command continues.")

    @contextmanager
    def told(self) -> Iterator[None]:
        """Let a stop within the block be that of the limit, where it is."""
        try:
            yield
        except Stopped as error:
            if self.stop.asked or not self.allowance.spent:
                raise
            raise Stopped(str(error).replace("Stopped", f"{self.allowance.limit} is reached", 1)) from None
