"""The training images of one worker, step by step: in the epoch's order, read ahead, augmented where they compute."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvjobs.common.errors import WrongUse
from cvjobs.training.data import gpu_cache
from cvjobs.training.data.decoded import Pictures
from cvjobs.training.loop.process_group import ProcessGroup, shared
from cvjobs.training.loop.step import StepBatch, StepPart, parted
from cvjobs.training.loop.training_task import TrainTask
from cvjobs.training.loop.transfer import Block
from cvjobs.training.plan import TrainPlan
from cvjobs.training.recipe import lr_schedule, sampling
from cvjobs.training.recipe.augment import Augment, Changes, generator


class Feed:
    """What one worker of a team trains on; ``steps`` are those of an epoch, the same for any number of workers."""

    def __init__(self, plan: TrainPlan, team: ProcessGroup, task: TrainTask) -> None:
        """Map the images, or bring them to the device; raises WrongUse where there are too few for a step."""
        self._plan, self._team, self._task = plan, team, task
        pictures = Pictures(plan.train.decoded)
        self._shape = pictures.shape[:2]
        self._images = gpu_cache.settled(pictures, team.device, plan.memory)
        self.steps = _steps(len(plan.train), plan.batch, plan.recipe.drop_last)

    def augmentation(self, epoch: int) -> Augment:
        """Return the augmentation of an epoch, at its image size."""
        recipe, transform = self._plan.recipe, self._plan.transform
        side = lr_schedule.size(recipe, epoch, min(transform.size or (0,)))
        return Augment(recipe, side, transform.mean, transform.std, self._team.device)

    def batches(self, epoch: int, first: int, augment: Augment) -> Generator[StepBatch, None, None]:
        """Yield every step of an epoch from ``first`` on; torch's own generator is seeded anew for each."""
        for ready in self._read(epoch, first, augment):
            torch.manual_seed(ready.seed)
            yield self._batch(ready, augment)

    def _batch(self, ready: _Ready, augment: Augment) -> StepBatch:
        sent = ready.block.sent()
        images = self._images.there(sent.images).permute(0, 3, 1, 2)

        def part(these: slice, changes: Changes, drawn: Any) -> StepPart:
            def given() -> tuple[Tensor, Tensor]:
                return self._task.prepared(augment(images[these], changes), drawn)

            return StepPart(images=these.stop - these.start, given=given)

        return StepBatch(parts=[part(*one) for one in zip(ready.parts, *sent.parts, strict=True)], whole=ready.whole)

    def _ready(self, epoch: int, step: int, order: NDArray[np.int64], augment: Augment) -> _Ready:
        """Read this worker's images of a step, and settle all that is done to them."""
        plan, team = self._plan, self._team
        which = order[step * plan.batch : (step + 1) * plan.batch]
        whole = len(which)
        # An image's augmentation is that of its place in the order, on whichever worker it is.
        drawn = augment.drawn(whole, generator(plan.seed, epoch, step))
        if shared(team, whole):
            which, drawn = which[team.rank :: team.size], drawn[team.rank :: team.size]
        # Everything random follows from the position: a checkpoint need not know of generators.
        random = generator(plan.seed, epoch, step, team.rank)
        seed = int(torch.randint(2**62, (), generator=random))
        parts = parted(len(which), plan.recipe.accumulate)
        height, width = self._shape
        needed = _Needed(
            images=self._images.taken(which),
            parts=(
                [augment.changes(drawn[these], height, width) for these in parts],
                [self._task.drawn(which[these], augment.size, random) for these in parts],
            ),
        )
        return _Ready(seed=seed, whole=whole, parts=parts, block=Block(needed, team.device))

    def _read(self, epoch: int, first: int, augment: Augment) -> Iterator[_Ready]:
        """Yield what every step from ``first`` on takes, made ready while the one before is computed."""
        plan = self._plan
        order = sampling.order(plan.train.labels, plan.recipe, plan.seed, epoch)
        with ThreadPoolExecutor(1, thread_name_prefix="pictures") as thread:
            following = thread.submit(self._ready, epoch, first, order, augment) if first < self.steps else None
            for step in range(first, self.steps):
                assert following is not None
                ready = following.result()
                more = step + 1 < self.steps
                following = thread.submit(self._ready, epoch, step + 1, order, augment) if more else None
                yield ready


@dataclass(frozen=True, kw_only=True)
class _Needed:
    """What a device needs of a step: what stands for its images, and what is done to those of each part."""

    images: Tensor
    parts: tuple[list[Changes], list[Any]]


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A step that can be sent: torch's seed, the images over all workers, and this worker's."""

    seed: int
    whole: int
    parts: list[slice]
    block: Block[_Needed]


def _steps(images: int, batch: int, drop_last: bool) -> int:
    """Return the steps of an epoch, the same for any number of workers; a last one of a single image is left out."""
    steps = sampling.steps(images, batch, drop_last)
    if images - (steps - 1) * batch >= 2:
        return steps
    if steps == 1:
        raise WrongUse("One training image is too few: batch norms need two.")
    return steps - 1
