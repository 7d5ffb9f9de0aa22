"""The loop: epochs of steps, each a pure function of the seed and the position, so that it continues where it was.

The order of the images is global and split over the workers by index; a checkpoint made by two workers is continued
by one. What one epoch leaves in the run is in ``leaving``.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvjobs.errors import JobFailed, Stopped, WrongUse
from cvjobs.recipes import findrate, optimizers, sampling, schedules
from cvjobs.recipes.augment import Augment, generator
from cvjobs.recipes.averaging import Average
from cvjobs.training import leaving, residence, sizing, tasks
from cvjobs.training.cache import Pictures
from cvjobs.training.checkpoints import Checkpoint, Checkpoints
from cvjobs.training.plan import TrainPlan, kind
from cvjobs.training.scoring import autocast
from cvjobs.training.team import Team

if TYPE_CHECKING:
    from cvjobs.training.events import Events

LOOK = 8  # steps between two looks at the loss, and at the clock
EVERY = 30.0  # seconds between two checkpoints within an epoch, at least
SHARE = 0.02  # of the time that checkpoints may cost


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a training is, for whoever watches; ``metric`` is the best so far, None before the first epoch's end."""

    epoch: int
    epochs: int
    done: int
    total: int
    loss: float
    metric: float | None
    rate: float


Watch = Callable[[State], bool]  # tells whether to stop


class Loop:
    """One training on one worker of a team."""

    def __init__(self, plan: TrainPlan, team: Team, watch: Watch, warn: Callable[[str], None]) -> None:
        self._plan, self._team, self._watch = plan, team, watch
        recipe = self._recipe = plan.recipe
        self._train = residence.settled(Pictures(plan.train.decoded), team.device, plan.memory)
        self._val = Pictures(plan.val.decoded)
        self._steps = _steps(len(plan.train), plan.batch, recipe.drop_last)
        self._task = tasks.of(plan)
        trainee = plan.subject.trainee()
        if trainee.weights.sha256 != plan.weights_sha256:
            raise JobFailed(
                f"The weights of {trainee.name} differ between this machine and the driver: make them equal."
            )
        model = trainee.module
        if recipe.freeze_until:
            optimizers.freeze(model, recipe.freeze_until)
        self._model = model.to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._average = Average(model, recipe, self._steps) if recipe.ema or recipe.swa else None
        self._optimizer = optimizers.build(model, recipe, plan.batch)
        self._network = team.wrap(self._model)
        self._kind = kind(plan.precision)
        # Without float16 it does nothing: gradients of that are lost below 6e-8 unless they are scaled.
        self._scaler = torch.amp.GradScaler(team.device.type, enabled=self._kind == torch.float16)
        self._done = 0
        self._history: list[dict[str, Any]] = []
        self._sum = torch.zeros(2, dtype=torch.float64, device=team.device)  # of the epoch's losses, and their count
        self._seconds = 0.0  # that this epoch took before it was continued
        self._rate = 0.0
        self._began = self._saved = time.monotonic()
        self._cost = 0.0
        self._asked = False
        self._identity = plan.identity
        self._checkpoints = Checkpoints(plan.run)
        self._events: Events | None = None
        self._restore(warn)

    def _restore(self, warn: Callable[[str], None]) -> None:
        first = self._team.rank == 0
        found = self._checkpoints.newest(warn if first else lambda _: None)
        if found is None:
            return
        if found.meta["identity"] != self._identity:
            raise WrongUse(
                f"The checkpoints in {self._plan.run} are of other images or settings than these: "
                "bring the images back, or give --overwrite."
            )
        self._model.load_state_dict(found.model)
        if self._average is not None:
            self._average.module.load_state_dict(found.average)
        self._optimizer.load_state_dict(dict(found.optimizer))
        if found.meta["scaler"]:
            self._scaler.load_state_dict(found.meta["scaler"])
        self._done = found.meta["done"]
        self._history = found.meta["history"]
        self._seconds = found.meta["seconds"]
        if first:  # the sum of the whole team
            self._sum += torch.tensor(found.meta["loss"], dtype=torch.float64, device=self._team.device)

    @property
    def _metrics(self) -> list[float]:
        return [row["metric"] for row in self._history]

    @property
    def _in_epoch(self) -> int:
        """How many steps of the epoch that has not ended are done."""
        return self._done - len(self._history) * self._steps

    def run(self) -> None:
        """Train to the end.

        Raises:
            JobFailed: the loss is no number any more, the memory does not suffice, or a checkpoint cannot be written.
            Stopped: whoever watches wants it; a checkpoint is made first.
        """
        with sizing.explained(self._plan):
            self._run()

    def _run(self) -> None:
        try:
            if self._team.rank == 0:
                self._checkpoints.clean()
                if self._history:  # a kill may have come between the two
                    leaving.history(self._plan, self._history)
                self._events = _events(self._plan, self._task.metric, self._history)
            while not schedules.finished(self._recipe, self._metrics):
                self._epoch(len(self._history))
                self._end_epoch()
                self._stop_if(self._asked and not schedules.finished(self._recipe, self._metrics))
            self._checkpoints.wait()
        finally:
            self._checkpoints.close()
            if self._events:
                self._events.close()

    def find_rate(self) -> findrate.RateCurve:
        """Make steps at ever higher rates, in terms of ``--lr``, which is the end of this training; nothing is kept.

        Raises:
            Stopped: whoever watches wants it.
        """
        augment = self._prepared(0)
        seen: list[float] = []

        def step(rate: float) -> float:
            epoch, number, (which, pixels) = next(stream)
            before = self._sum.clone()
            self._step(epoch, number, which, pixels, augment, rate / self._recipe.lr)
            loss, count = (self._sum - before).tolist()
            seen.append(loss / count)
            state = State(
                epoch=1,
                epochs=1,
                done=len(seen),
                total=findrate.STEPS,
                loss=seen[-1],
                metric=None,
                rate=len(seen) * self._plan.batch / (time.monotonic() - self._began),
            )
            if self._watch(state):
                raise Stopped("Stopped: the same command starts the search for a rate again.")
            return seen[-1]

        self._began = time.monotonic()
        with sizing.explained(self._plan), closing(self._forever()) as stream:
            return findrate.find(step)

    def _forever(self) -> Generator[tuple[int, int, tuple[NDArray[np.int64], Tensor]], None, None]:
        for epoch in itertools.count():
            yield from ((epoch, step, batch) for step, batch in enumerate(self._batches(epoch, 0)))

    def _prepared(self, epoch: int) -> Augment:
        """Bring the network into its state for training, and return the augmentation of an epoch."""
        transform = self._plan.transform
        self._network.train()
        optimizers.set_training(self._model, self._recipe.freeze_until)
        side = schedules.size(self._recipe, epoch, min(transform.size or (0,)))
        return Augment(self._recipe, side, transform.mean, transform.std)

    def _epoch(self, epoch: int) -> None:
        plan, team = self._plan, self._team
        augment = self._prepared(epoch)
        self._began = self._saved = time.monotonic()
        self._cost = 0.0
        first = self._in_epoch
        images = 0
        for step, (which, pixels) in enumerate(self._batches(epoch, first), first):
            share = schedules.rate(self._recipe, self._done, self._steps, self._metrics)
            self._step(epoch, step, which, pixels, augment, share)
            images += min(plan.batch, len(plan.train) - step * plan.batch)
            if (step + 1) % LOOK == 0 or step + 1 == self._steps:
                self._look(epoch, images, step + 1 == self._steps)
        took = time.monotonic() - self._began
        self._seconds += took
        self._rate = images / max(took, 1e-9)
        team.share_buffers(self._model)
        if self._average is not None:
            team.share_buffers(self._average.module)

    def _batches(self, epoch: int, first: int) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield this worker's images of every step from ``first`` on, read while the one before is computed."""
        plan, team = self._plan, self._team
        order = sampling.order(plan.train.labels, self._recipe, plan.seed, epoch)

        def read(step: int) -> tuple[NDArray[np.int64], Tensor]:
            which = order[step * plan.batch : (step + 1) * plan.batch]
            which = which[team.rank :: team.size] if self._shared(len(which)) else which
            return which, self._train.take(which)

        with ThreadPoolExecutor(1, thread_name_prefix="pictures") as thread:
            following = thread.submit(read, first) if first < self._steps else None
            for step in range(first, self._steps):
                assert following is not None
                batch = following.result()
                following = thread.submit(read, step + 1) if step + 1 < self._steps else None
                yield batch

    def _step(
        self, epoch: int, step: int, which: NDArray[np.int64], pixels: Tensor, augment: Augment, share: float
    ) -> None:
        plan, team, recipe = self._plan, self._team, self._recipe
        whole = min(plan.batch, len(plan.train) - step * plan.batch)
        schedules.set_rate(self._optimizer, share)
        # Everything random follows from the position: a checkpoint need not know of generators.
        random = generator(plan.seed, epoch, step, team.rank)
        torch.manual_seed(int(torch.randint(2**62, (), generator=random)))
        pieces = np.array_split(np.arange(len(which)), max(min(recipe.accumulate, len(which) // 2), 1))
        for number, piece in enumerate(pieces):
            last = number + 1 == len(pieces)
            images = pixels[piece[0] : piece[-1] + 1].to(team.device, non_blocking=True).permute(0, 3, 1, 2)
            with torch.no_grad():
                inputs, targets = self._task.prepared(augment(images, random), which[piece], random)
            with torch.enable_grad() if last else team.accumulating(self._network):
                with autocast(team.device, self._kind):
                    outputs = self._network(inputs.contiguous(memory_format=torch.channels_last))
                loss: Any = self._task.loss(outputs.float(), targets)
                # The mean over the team of these is the mean over the images of the step.
                weight = len(piece) if self._shared(whole) else len(piece) / team.size
                self._scaler.scale(loss * (weight * team.size / whole)).backward()
            self._sum += torch.stack([loss.detach().double() * weight, loss.new_tensor(weight).double()])
        self._scaler.unscale_(self._optimizer)
        optimizers.clip(self._model, recipe)
        self._scaler.step(self._optimizer)  # not where a gradient overflowed, on any worker: its scale was too large
        self._scaler.update()
        self._optimizer.zero_grad()
        self._done += 1
        if self._average is not None:
            self._average.update(self._model, self._done)

    def _shared(self, images: int) -> bool:
        """Whether the workers share a step of so many images: batch norms need two each, or all compute all of it."""
        return images >= 2 * self._team.size

    def _look(self, epoch: int, images: int, ends: bool) -> None:
        """Tell who watches where training is, save what a kill should not cost, and stop where that is asked for."""
        now = time.monotonic()
        due = now - self._saved > max(EVERY, self._cost / SHARE) and not ends
        loss, count = self._team.sums(self._sum).tolist()
        if not math.isfinite(loss):
            raise JobFailed(
                f"The loss is no number any more in epoch {epoch + 1}: lower --lr, or clip gradients with --clip-grad; "
                "the last checkpoint is from before."
            )
        metrics = self._metrics
        state = State(
            epoch=epoch + 1,
            epochs=self._recipe.epochs,
            done=self._in_epoch,
            total=self._steps,
            loss=loss / count,
            metric=max(metrics) if metrics else None,
            rate=images / max(now - self._began, 1e-9),
        )
        wishes = self._team.gathered((self._watch(state), due)) if self._team.size > 1 else [(self._watch(state), due)]
        self._asked = any(asked for asked, _ in wishes)
        if ends:  # and is saved anyway
            return
        if self._asked or wishes[0][1]:
            self._save([loss, count], now - self._began)
        self._stop_if(self._asked)

    def _stop_if(self, asked: bool) -> None:
        if asked:
            self._checkpoints.wait()
            raise Stopped("Stopped: the same command continues.")

    def _save(self, loss: list[float], seconds: float, then: Callable[[], None] | None = None) -> None:
        if self._team.rank:
            return
        began = time.monotonic()
        self._checkpoints.save(
            Checkpoint(
                model=self._model.state_dict(),
                average=self._average.module.state_dict() if self._average else {},
                optimizer=self._optimizer.state_dict(),
                meta={
                    "identity": self._identity,
                    "done": self._done,
                    "history": self._history,
                    "loss": loss,
                    "seconds": self._seconds + seconds,
                    "workers": self._team.size,
                    "scaler": self._scaler.state_dict(),
                },
            ),
            then,
        )
        self._saved = time.monotonic()
        self._cost = self._saved - began

    def _end_epoch(self) -> None:
        """Score the validation split, and leave the epoch's row, the best model and a checkpoint."""
        plan, team = self._plan, self._team
        loss, count = team.sums(self._sum).tolist()
        network = self._average.module if self._average else self._model
        found = self._task.scores(network, self._val, plan.val, team)
        best = not self._history or found.metric > max(self._metrics)
        self._history.append(
            asdict(
                leaving.Epoch(
                    epoch=len(self._history) + 1,
                    lr=self._optimizer.defaults["lr"]
                    * schedules.rate(self._recipe, self._done - 1, self._steps, self._metrics),
                    train_loss=loss / count,
                    val_loss=found.loss,
                    metric=found.metric,
                    images_per_second=self._rate,
                    seconds=self._seconds,
                    workers=team.size,
                )
            )
        )
        self._sum.zero_()
        self._seconds = 0.0
        if team.rank == 0:
            if best:
                leaving.best(plan, self._task, network, len(self._history), found)
            rows = list(self._history)
            # Never before the checkpoint: a history without one is a run whose checkpoints are gone.
            self._save([0.0, 0.0], 0.0, lambda: self._leave(rows))

    def _leave(self, rows: list[dict[str, Any]]) -> None:
        leaving.history(self._plan, rows)
        if self._events:
            self._events.add(rows[-1])


def _events(plan: TrainPlan, metric: str, history: list[dict[str, Any]]) -> Events | None:
    """Return where the curves go for TensorBoard, None where nobody asked for that."""
    if not plan.tensorboard:
        return None
    from cvjobs.training import events  # half a second of imports

    return events.Events(plan.run, metric, events.settings(plan), history)


def _steps(images: int, batch: int, drop_last: bool) -> int:
    """Return the steps of an epoch, the same for any number of workers; a last one of a single image is left out."""
    steps = sampling.steps(images, batch, drop_last)
    if images - (steps - 1) * batch >= 2:
        return steps
    if steps == 1:
        raise WrongUse("One training image is too few: batch norms need two.")
    return steps - 1
