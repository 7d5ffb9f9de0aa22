"""The training images of one worker, step by step: in the epoch's order, read ahead, augmented where they compute."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvjobs.common.errors import WrongUse
from cvjobs.training.data import gpu_cache
from cvjobs.training.data.outcomes import nothing
from cvjobs.training.data.whole_pictures import opened
from cvjobs.training.loop.process_group import ProcessGroup, shared
from cvjobs.training.loop.step import StepBatch, StepPart, parted
from cvjobs.training.loop.training_task import TrainTask
from cvjobs.training.loop.transfer import Block
from cvjobs.training.plan import TrainPlan
from cvjobs.training.recipe import lr_schedule, sampling
from cvjobs.training.recipe.augment import Augmentation, generator

IDLE = 0.2  # seconds without a step until ``idle`` is called
SETTLED = 2048  # images whose augmentation is settled at once, for it is hundreds of small calls


class Feed:
    """What one worker of a team trains on; ``steps`` are those of an epoch, the same for any number of workers."""

    def __init__(
        self, plan: TrainPlan, team: ProcessGroup, task: TrainTask, idle: Callable[[], None] = nothing
    ) -> None:
        """Map the images, or bring them to the device; raises WrongUse where there are too few for a step.

        ``idle`` is called while images are waited for, and may raise.
        """
        self._plan, self._team, self._task, self._idle = plan, team, task, idle
        self._closed = threading.Event()
        self._pictures = opened(plan.train.decoded, self._glance)
        self._images = gpu_cache.mapped(self._pictures, team.device)
        self._all_there = self._begun = False
        self.steps = _steps(len(plan.train), plan.batch, plan.recipe.drop_last)

    def augmentation(self, epoch: int) -> Augmentation:
        """Return the augmentation of an epoch, at its image size."""
        recipe, transform = self._plan.recipe, self._plan.transform
        side = lr_schedule.size(recipe, epoch, min(transform.size or (0,)))
        return self._plan.augmentation(side, self._team.device, epoch)

    def _settle(self) -> None:
        """Bring the images to the device, from the first epoch on at which all are there, where they have room."""
        if not self._all_there and self._pictures.complete:
            # Once there were steps, what they need is no longer free.
            needed = 0 if self._begun else self._plan.memory
            self._images = gpu_cache.settled(self._pictures, self._team.device, needed)
            self._all_there = True
        self._begun = True

    def _glance(self) -> None:
        if self._closed.is_set():
            raise _ClosedError

    def batches(self, epoch: int, first: int, augment: Augmentation) -> Generator[StepBatch, None, None]:
        """Yield every step of an epoch from ``first`` on; torch's own generator is seeded anew for each."""
        for ready in self._read(epoch, first, augment):
            torch.manual_seed(ready.seed)
            yield self._batch(ready, augment)

    def _batch(self, ready: _Ready, augment: Augmentation) -> StepBatch:
        sent = ready.block.sent()
        images = self._images.there(sent.images)

        def part(these: slice, changes: Any, drawn: Any) -> StepPart:
            def given() -> tuple[Any, Tensor]:
                return self._task.prepared(augment(images[these], changes), drawn)

            return StepPart(images=these.stop - these.start, given=given)

        return StepBatch(parts=[part(*one) for one in zip(ready.parts, *sent.parts, strict=True)], whole=ready.whole)

    def _read(self, epoch: int, first: int, augment: Augmentation) -> Iterator[_Ready]:
        """Yield what every step from ``first`` on takes, made ready while the one before is computed."""
        self._closed.clear()
        with ThreadPoolExecutor(1, thread_name_prefix="pictures") as thread:
            try:
                self._settle()
                steps = self._all_ready(epoch, first, augment)
                following = thread.submit(next, steps, None)
                while (ready := self._awaited(following)) is not None:
                    following = thread.submit(next, steps, None)
                    yield ready
            finally:
                self._closed.set()

    def _awaited(self, following: Future[_Ready | None]) -> _Ready | None:
        while True:
            try:
                return following.result(IDLE)
            except TimeoutError:
                if following.done():  # the error is the reader's
                    raise
                self._idle()

    def _all_ready(self, epoch: int, first: int, augment: Augmentation) -> Iterator[_Ready]:
        plan = self._plan
        order = plan.order(epoch)
        end = first
        while end < self.steps:
            several = max(SETTLED // plan.batch, 1) if self._pictures.complete else 1
            steps = range(end, min(end + several, self.steps))
            end = steps.stop
            mine = [self._mine(order[step * plan.batch : (step + 1) * plan.batch]) for step in steps]
            # An image's augmentation is that of its place in the order, on whichever worker it is.
            drawn = [
                augment.drawn(whole, generator(plan.seed, epoch, step))[rows]
                for step, (whole, rows, _) in zip(steps, mine, strict=True)
            ]
            sizes = self._pictures.sizes(np.concatenate([which for _, _, which in mine]))
            settled = augment.settled(torch.cat(drawn), *sizes)
            done = 0
            for step, (whole, _, which) in zip(steps, mine, strict=True):
                yield self._ready((epoch, step), whole, which, settled, done, augment.size)
                done += len(which)

    def _mine(self, which: NDArray[np.int64]) -> tuple[int, slice, NDArray[np.int64]]:
        """Return the number of a step's images, the rows of this worker's, and these."""
        rank, size = (self._team.rank, self._team.size) if shared(self._team, len(which)) else (0, 1)
        return len(which), slice(rank, None, size), self._pictures.stand_ins(which[rank::size])

    def _ready(
        self, place: tuple[int, int], whole: int, which: NDArray[np.int64], settled: Any, first: int, side: int
    ) -> _Ready:
        """Read this worker's images of a step; what is done to them is settled from the row ``first`` on."""
        plan, team = self._plan, self._team
        # Everything random follows from the position: a checkpoint need not know of generators.
        random = generator(plan.seed, *place, team.rank)
        seed = int(torch.randint(2**62, (), generator=random))
        parts = parted(len(which), plan.recipe.accumulate)
        changes = [settled.changes(slice(first + these.start, first + these.stop)) for these in parts]
        drawn = [self._task.drawn(which[these], side, random, own) for these, own in zip(parts, changes, strict=True)]
        needed = _Needed(images=self._images.taken(which), parts=(changes, drawn))
        return _Ready(seed=seed, whole=whole, parts=parts, block=Block(needed, team.device))


@dataclass(frozen=True, kw_only=True)
class _Needed:
    """What a device needs of a step: what stands for its images, and what is done to those of each part."""

    images: Any
    parts: tuple[list[Any], list[Any]]


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A step that can be sent: torch's seed, the images over all workers, and this worker's."""

    seed: int
    whole: int
    parts: list[slice]
    block: Block[_Needed]


class _ClosedError(Exception):
    """Nobody takes the steps any more."""


def _steps(images: int, batch: int, drop_last: bool) -> int:
    """Return the steps of an epoch, the same for any number of workers; a last one of a single image is left out."""
    steps = sampling.steps(images, batch, drop_last)
    if images - (steps - 1) * batch >= 2:
        return steps
    if steps == 1:
        raise WrongUse("One training image is too few: batch norms need two.")
    return steps - 1
