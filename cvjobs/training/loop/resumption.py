"""Where a training is, and how it gets there again: what of it a checkpoint keeps, and when one is made."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cvjobs.common.errors import WrongUse
from cvjobs.training.extension import BEGUN
from cvjobs.training.identity import TrainIdentity
from cvjobs.training.loop.checkpoints import Checkpoint, Checkpoints
from cvjobs.training.loop.process_group import ProcessGroup
from cvjobs.training.loop.step import Learner
from cvjobs.training.plan import TrainPlan
from cvjobs.training.recipe import optimizers

EVERY = 30.0  # seconds between two checkpoints within an epoch, at least
SHARE = 0.02  # of the time that checkpoints may cost


@dataclass(kw_only=True)
class Position:
    """Where a training is, beside the learner's own state.

    ``history`` has a row for each ended epoch, as ``artifacts.Epoch``. Of the epoch that has not, ``loss`` is this
    worker's sum over ``images`` of it, a float64 scalar on the device; ``seconds`` is what it took before this process.
    """

    loss: Tensor
    images: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def metrics(self) -> list[float]:
        """The validation metric of each epoch."""
        return [row["metric"] for row in self.history]

    def add(self, losses: Sequence[tuple[Tensor, float]]) -> None:
        """Count the losses of a step; see ``Learner.step``."""
        for loss, images in losses:
            self.loss += loss.double() * images
            self.images += images

    def losses(self) -> Tensor:
        """Return the sum of the losses and the images, float64 (2,), on the device."""
        return torch.stack([self.loss, torch.full_like(self.loss, self.images)])

    def end_epoch(self, row: dict[str, Any]) -> None:
        """Begin the next epoch."""
        self.history.append(row)
        self.loss.zero_()
        self.images = 0.0
        self.seconds = 0.0


class Resumption:
    """The checkpoints of one run, written by the first worker of its team alone."""

    def __init__(self, plan: TrainPlan, team: ProcessGroup, check: Callable[[], None]) -> None:
        self._run, self._team = plan.run, team
        self._begun = {BEGUN: plan.begun_epochs} if plan.begun_epochs not in (0, plan.recipe.epochs) else {}
        self._identity = TrainIdentity.of(plan).checkpoint_digest(plan.train)
        self._checkpoints = Checkpoints(plan.store(check), check)
        self._limited = plan.limited
        self._saved = time.monotonic()
        self._cost = 0.0
        self._saves = 0

    @property
    def took(self) -> float:
        """What the last checkpoint took in s, up to where it was on disk; 0 before there was one."""
        return self._cost + self._checkpoints.took

    def restore(self, learner: Learner, position: Position, warn: Callable[[str], None]) -> None:
        """Bring both to where the newest checkpoint is; without one they stay as they are.

        Raises:
            WrongUse: no checkpoint is whole, or it is one of other images or settings.
        """
        first = self._team.rank == 0
        found = self._checkpoints.newest(warn if first else lambda _: None)
        if found is None:
            return
        if found.meta["identity"] != self._identity:
            raise WrongUse(
                f"The checkpoints in {self._run} are of other images or settings than these: "
                "bring the images back, or give --overwrite."
            )
        learner.model.load_state_dict(found.model)
        if learner.average is not None:
            learner.average.module.load_state_dict(found.average)
        optimizers.restore(learner.optimizer, found.optimizer)
        if found.meta["scaler"]:
            learner.scaler.load_state_dict(found.meta["scaler"])
        learner.done = found.meta["done"]
        position.history = found.meta["history"]
        position.seconds = found.meta["seconds"]
        if first:  # the sum of the whole team
            loss, position.images = found.meta["loss"]
            position.loss += loss

    def begin_epoch(self) -> None:
        """Count from now to the next checkpoint within an epoch."""
        self._saved = time.monotonic()
        self._cost = 0.0

    def due(self, now: float) -> bool:
        """Return whether enough has happened since the last checkpoint for another one within the epoch.

        A training that has a limit makes one at once, to know what that takes.
        """
        return (self._limited and not self._saves) or now - self._saved > max(EVERY, self._cost / SHARE)

    def save(
        self,
        learner: Learner,
        position: Position,
        *,
        losses: Sequence[float] = (0.0, 0.0),
        seconds: float = 0.0,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Write a checkpoint in the background, of copies made now, and ``then`` what it is the ground of.

        Args:
            learner: Its weights, average, optimizer and scaler are saved.
            position: The epochs so far.
            losses: Of the epoch that has not ended: the sum over the whole team's images, and their number.
            seconds: What that epoch took in this process.
            then: Called when the checkpoint is on disk.
        """
        if self._team.rank:
            return
        began = time.monotonic()
        self._checkpoints.save(
            Checkpoint(
                model=learner.model.state_dict(),
                average=learner.average.module.state_dict() if learner.average else {},
                optimizer=learner.optimizer.state_dict(),
                meta={
                    "identity": self._identity,
                    "done": learner.done,
                    "history": position.history,
                    "loss": list(losses),
                    "seconds": position.seconds + seconds,
                    "workers": self._team.size,
                    "scaler": learner.scaler.state_dict(),
                    **self._begun,
                },
            ),
            then,
        )
        self._saved = time.monotonic()
        self._cost = self._saved - began
        self._saves += 1

    def clean(self) -> None:
        """Delete what a writer that was killed left behind."""
        self._checkpoints.clean()

    def wait(self) -> None:
        """Return when the last checkpoint is on disk; raises JobFailed or WrongUse where it cannot be written."""
        self._checkpoints.wait()

    def close(self) -> None:
        """Finish what is being written."""
        self._checkpoints.close()
