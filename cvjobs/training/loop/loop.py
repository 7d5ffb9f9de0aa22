"""The loop: epochs of steps, each a pure function of the seed and the position, so that it continues where it was.

The order of the images is global and split over the workers by index; a checkpoint made by two workers is continued
by one. One step is in ``step``, what a checkpoint keeps in ``resumption``, what one epoch leaves in ``artifacts``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from cvjobs.common import rates
from cvjobs.common.errors import JobFailed, Stopped
from cvjobs.common.formatting import counted
from cvjobs.training import artifacts
from cvjobs.training.checks import batch_size
from cvjobs.training.data import outcomes
from cvjobs.training.data.whole_pictures import AnyPictures, opened
from cvjobs.training.loop import cuda_graph, task_registry
from cvjobs.training.loop.compiled_pass import CompiledPass
from cvjobs.training.loop.feed import Feed
from cvjobs.training.loop.late_values import LateValues
from cvjobs.training.loop.process_group import ProcessGroup
from cvjobs.training.loop.resumption import Position, Resumption
from cvjobs.training.loop.step import Learner
from cvjobs.training.loop.step_times import StepTimes
from cvjobs.training.loop.stop_costs import StopCosts
from cvjobs.training.plan import SplitPart, TrainPlan
from cvjobs.training.recipe import lr_schedule

if TYPE_CHECKING:
    from cvjobs.storage.store import Store
    from cvjobs.training.report.tensorboard import Events

LOOK = 8  # steps between two looks at the loss, and at the clock
FIRST_LOOKS = (1, 2, 4)  # steps after which a training that has a limit is looked at, too
TOLD = 0.5  # seconds between two reports of the step
FIRST = "the first step"
VALIDATING, TESTING = "validating", "testing"
WAITING = "waiting for images that are decoded"


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a training is; ``metric`` is the best so far, None before the first epoch's end.

    ``phase`` is what is done beside steps, empty between them. ``loss`` is that of the last look at it in this epoch or
    the one before, ``rate`` is in images a second, and ``left`` in seconds: None, or 0, where nothing tells yet.
    ``stopping`` are the seconds until it could be at rest, were it stopped one look later; ``machines`` are the ids of
    Ray's machines that its workers are on.
    """

    epoch: int
    epochs: int
    done: int
    total: int
    loss: float | None
    metric: float | None
    rate: float
    left: float | None = None
    phase: str = ""
    stopping: float = 0.0
    machines: tuple[str, ...] = ()


Watch = Callable[[State], bool]  # tells whether to stop
Report = Callable[[State], None]


class Loop:
    """One training on one worker of a team."""

    def __init__(
        self,
        plan: TrainPlan,
        team: ProcessGroup,
        watch: Watch,
        warn: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
        report: Report = lambda _: None,
        *,
        agree: Callable[[SplitPart], None] | None = None,
    ) -> None:
        """Begin where the newest checkpoint is; ``check`` may refuse a write.

        ``agree`` is called by all workers together at the end of each epoch, with the images to validate with, and may
        raise.

        ``warn`` is told of checkpoints that are damaged, and of a model that cannot be compiled. ``watch`` is asked
        every few steps, ``report`` is told of each phase as it begins and twice a second of the step: of what the CPU
        knows, without waiting for the device.

        Raises:
            JobFailed: this machine has other weights than the driver.
            WrongUse: no checkpoint is whole, or it is one of other images or settings; or there are too few images.
        """
        self._plan, self._team, self._watch, self._recipe = plan, team, watch, plan.recipe
        self._task = task_registry.of(plan)
        self._feed = Feed(plan, team, self._task, self._idle)
        self._val: AnyPictures | None = None
        self._learner = Learner.of(plan, team, self._feed.steps)
        self._hasten(warn if team.rank == 0 else lambda _: None)
        self._position = Position(loss=torch.zeros((), dtype=torch.float64, device=team.device))
        self._late = LateValues(team.device)
        self._check, self._run_store = check, plan.store(check)
        self._resumption = Resumption(plan, team, check)
        self._resumption.restore(self._learner, self._position, warn)
        self._rate = 0.0
        self._times = StepTimes(team.device)
        self._report, self._reported, self._pace = report, 0.0, StepPace()
        self._agree = agree
        self._epoch_now, self._images, self._batches = 0, 0, 0
        self._loss: float | None = None
        self._began = time.monotonic()
        self._asked = False
        self._stops = StopCosts(LOOK * (1 if team.size == 1 else 2), len(plan.val) / plan.batch)
        self._events: Events | None = None

    def _hasten(self, warn: Callable[[str], None]) -> None:
        """Compute whole batches in the fastest way that the plan and the device allow."""
        learner, team = self._learner, self._team
        if self._plan.compiled:
            learner.hasten(partial(CompiledPass, model=learner.model, warn=warn))
        elif cuda_graph.pays(self._plan, team):
            recorder = cuda_graph.GraphRecorder(team.device)
            learner.hasten(partial(cuda_graph.GraphPass, model=learner.model, recorder=recorder, warn=warn))

    def tests(self, images: int) -> State:
        """Return where training is that has ended when so many images are tested on: as long as the last validation."""
        took = self._stops.validating * images / len(self._plan.val)
        return replace(self._state(f"{TESTING} on {counted(images, 'images')}"), stopping=took)

    @property
    def _in_epoch(self) -> int:
        """How many steps of the epoch that has not ended are done."""
        return self._learner.done - len(self._position.history) * self._feed.steps

    @property
    def _finished(self) -> bool:
        return lr_schedule.finished(self._recipe, self._position.metrics)

    def run(self) -> None:
        """Train to the end.

        Raises:
            JobFailed: the loss is no number any more, the memory does not suffice, or a checkpoint cannot be written.
            Stopped: ``watch`` asks for it; a checkpoint is made first.
        """
        with batch_size.explained(self._plan):
            self._run()

    def _run(self) -> None:
        try:
            if self._team.rank == 0:
                self._resumption.clean()
                if self._position.history:  # a kill may have come between the two
                    artifacts.history(self._run_store, self._position.history)
                self._events = _events(self._plan, self._run_store, self._task.metric, self._position.history)
            with self._times.metered() if self._team.rank == 0 else nullcontext():
                while not self._finished:
                    self._epoch(len(self._position.history))
                    began = time.monotonic()
                    self._end_epoch()
                    self._stops.validated(time.monotonic() - began)
                    if self._plan.limited:
                        self._asked = self._wishes(due=False)[0]
                    self._stop_if(self._asked and not self._finished)
            self._tell("saving")
            self._resumption.wait()
        finally:
            self._resumption.close()
            if self._events:
                self._events.close()

    def _epoch(self, epoch: int) -> None:
        team, learner = self._team, self._learner
        learner.train()
        augment = self._feed.augmentation(epoch)
        self._began = time.monotonic()
        self._resumption.begin_epoch()
        first, steps = self._in_epoch, self._feed.steps
        self._epoch_now, self._images, self._batches = epoch, 0, 0
        self._late.forget()
        self._tell("" if self._pace.steps else FIRST)
        for step, batch in enumerate(self._times.waited(self._feed.batches(epoch, first, augment)), first):
            rate = lr_schedule.rate(self._recipe, learner.done, steps, self._position.metrics)
            with self._times.step():
                self._position.add(learner.step(batch, self._task.loss, rate))
            self._pace.stepped(time.monotonic())
            self._images += batch.whole
            self._batches += 1
            if step + 1 == steps or self._looks(step + 1):
                self._look(step + 1 == steps)
            elif time.monotonic() - self._reported >= TOLD:
                self._tell()
        took = time.monotonic() - self._began
        self._position.seconds += took
        self._rate = rates.rate(self._images, took, self._batches)
        self._spent = self._times.taken(took)
        team.share_buffers(learner.model)
        if learner.average is not None:
            team.share_buffers(learner.average.module)

    def _idle(self) -> None:
        """Tell that images are waited for; alone, stop where that is asked for."""
        if time.monotonic() - self._reported < TOLD:
            return
        state = self._tell(WAITING)
        if self._team.size == 1 and self._watch(state):
            raise Stopped("Stopped: the same command continues.")

    def _looks(self, step: int) -> bool:
        """Return whether to look after a step of an epoch: with a limit also after the first ones, for their pace."""
        return step % LOOK == 0 or (self._plan.limited and self._pace.steps in FIRST_LOOKS)

    def _state(self, phase: str = "") -> State:
        steps = self._feed.steps
        done = self._learner.done - self._epoch_now * steps
        return State(
            epoch=self._epoch_now + 1,
            epochs=self._recipe.epochs,
            done=done,
            total=steps,
            loss=self._loss,
            metric=max(self._position.metrics, default=None),
            rate=rates.rate(self._images, time.monotonic() - self._began, self._batches) if not phase else 0.0,
            left=self._pace.left((self._recipe.epochs - self._epoch_now) * steps - done),
            phase=phase,
            stopping=self._stops.needed(steps - done or steps, self._resumption.took),
        )

    def _tell(self, phase: str = "") -> State:
        """Report where training is, and return it; the device may be some steps behind."""
        self._reported, state = time.monotonic(), self._state(phase)
        self._report(state)
        return state

    def _look(self, ends: bool) -> None:
        """Tell who watches where training is, save what a kill should not cost, and stop where that is asked for."""
        now = time.monotonic()
        due = self._resumption.due(now) and not ends
        sums = self._team.sums(self._position.losses())
        if known := sums.tolist() if ends else self._late.read(sums):
            self._loss = self._mean_loss(known)
        self._stops.stepped(self._pace.steps, now)
        self._asked, due = self._wishes(due)
        if ends:  # and is saved anyway
            return
        if self._asked or due:
            self._tell("saving")
            seconds, losses = now - self._began, sums.tolist()
            self._mean_loss(losses)
            self._resumption.save(self._learner, self._position, losses=losses, seconds=seconds)
        self._stop_if(self._asked)

    def _wishes(self, due: bool) -> tuple[bool, bool]:
        """Return whether a worker is asked to stop, and whether the first one's checkpoint is due."""
        mine = self._watch(self._tell()), due
        wishes = self._team.gathered(mine) if self._team.size > 1 else [mine]
        return any(asked for asked, _ in wishes), wishes[0][1]

    def _mean_loss(self, losses: Sequence[float]) -> float:
        """Return the mean of a sum over images; raises JobFailed where it is no number."""
        loss, images = losses
        _check_number("loss", loss, self._epoch_now)
        return loss / images

    def _stop_if(self, asked: bool) -> None:
        if asked:
            self._resumption.wait()
            raise Stopped("Stopped: the same command continues.")

    def _end_epoch(self) -> None:
        """Score the validation split, and leave the epoch's row, the best model and a checkpoint."""
        plan, team, learner, position = self._plan, self._team, self._learner, self._position
        loss = self._mean_loss(team.sums(position.losses()).tolist())
        if self._val is None:
            plan = self._plan = replace(plan, val=outcomes.known(plan.val, self._idle))
            self._val = opened(plan.val.decoded)
        if self._agree is not None:
            self._agree(plan.val)
        self._tell(f"{VALIDATING} {counted(len(plan.val), 'images')}")
        found = self._task.scores(learner.scored, self._val, plan.val, team)
        _check_number("validation loss", found.loss, len(position.history))
        best = not position.history or found.metric > max(position.metrics)
        rate = lr_schedule.rate(self._recipe, learner.done - 1, self._feed.steps, position.metrics)
        row = artifacts.Epoch(
            epoch=len(position.history) + 1,
            lr=learner.optimizer.defaults["lr"] * rate,
            train_loss=loss,
            val_loss=found.loss,
            metric=found.metric,
            images_per_second=self._rate,
            seconds=position.seconds,
            workers=team.size,
            **vars(self._spent),
        )
        position.end_epoch({**asdict(row), **found.more})
        if team.rank == 0:
            self._tell("saving")
            self._check()
            if best:
                artifacts.best(self._run_store, plan, self._task, learner.scored, row.epoch, found)
            rows = list(position.history)
            # Never before the checkpoint: a history without one is a run whose checkpoints are gone.
            self._resumption.save(learner, position, then=lambda: self._leave(rows))

    def _leave(self, rows: list[dict[str, Any]]) -> None:
        artifacts.history(self._run_store, rows)
        if self._events:
            self._events.add(rows[-1])


class StepPace:
    """How fast training goes, from the end of the first step on, with all that lies between steps; s of a clock."""

    def __init__(self) -> None:
        self.steps = 0
        self._since = 0.0

    def stepped(self, at: float) -> None:
        """Count a step that has ended."""
        self._since = self._since if self.steps else at
        self.steps += 1

    def left(self, steps: int, now: float | None = None) -> float | None:
        """Return the seconds that so many more steps take, None where too little is known."""
        seconds = (time.monotonic() if now is None else now) - self._since
        return rates.left(steps, self.steps - 1, seconds, self.steps - 1)


def _check_number(name: str, loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise JobFailed(
            f"The {name} is no number any more in epoch {epoch + 1}: lower --lr, or clip gradients with --clip-grad; "
            "the last checkpoint is from before."
        )


def _events(plan: TrainPlan, run: Store, metric: str, history: list[dict[str, Any]]) -> Events | None:
    """Return where the curves go for TensorBoard, None without ``--tensorboard``."""
    if not plan.tensorboard:
        return None
    from cvjobs.training.report import tensorboard  # half a second of imports

    return tensorboard.Events(run, metric, tensorboard.settings(plan), history)
