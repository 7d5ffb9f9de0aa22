"""The training images of one worker, step by step: in the epoch's order, read ahead, augmented where they compute."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvjobs.common.errors import WrongUse
from cvjobs.training.data import gpu_cache
from cvjobs.training.data.decoded import Pictures
from cvjobs.training.loop.process_group import ProcessGroup, shared
from cvjobs.training.loop.step import StepBatch, parted
from cvjobs.training.loop.training_task import TrainTask
from cvjobs.training.plan import TrainPlan
from cvjobs.training.recipe import lr_schedule, sampling
from cvjobs.training.recipe.augment import Augment, generator


class Feed:
    """What one worker of a team trains on; ``steps`` are those of an epoch, the same for any number of workers."""

    def __init__(self, plan: TrainPlan, team: ProcessGroup, task: TrainTask) -> None:
        """Map the images, or bring them to the device; raises WrongUse where there are too few for a step."""
        self._plan, self._team, self._task = plan, team, task
        self._images = gpu_cache.settled(Pictures(plan.train.decoded), team.device, plan.memory)
        self.steps = _steps(len(plan.train), plan.batch, plan.recipe.drop_last)

    def augmentation(self, epoch: int) -> Augment:
        """Return the augmentation of an epoch, at its image size."""
        recipe, transform = self._plan.recipe, self._plan.transform
        side = lr_schedule.size(recipe, epoch, min(transform.size or (0,)))
        return Augment(recipe, side, transform.mean, transform.std)

    def batches(self, epoch: int, first: int, augment: Augment) -> Generator[StepBatch, None, None]:
        """Yield every step of an epoch from ``first`` on; torch's own generator is seeded anew for each."""
        for step, (which, pixels) in enumerate(self._read(epoch, first), first):
            yield self._batch(epoch, step, which, pixels, augment)

    def _batch(self, epoch: int, step: int, which: NDArray[np.int64], pixels: Tensor, augment: Augment) -> StepBatch:
        plan, team = self._plan, self._team
        # Everything random follows from the position: a checkpoint need not know of generators.
        random = generator(plan.seed, epoch, step, team.rank)
        torch.manual_seed(int(torch.randint(2**62, (), generator=random)))
        whole = min(plan.batch, len(plan.train) - step * plan.batch)
        # An image's augmentation is that of its place in the order, on whichever worker it is.
        drawn = augment.drawn(whole, generator(plan.seed, epoch, step))
        drawn = drawn[team.rank :: team.size] if shared(team, whole) else drawn

        def given(part: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
            these = slice(part[0], part[-1] + 1)
            images = pixels[these].to(team.device, non_blocking=True).permute(0, 3, 1, 2)
            return self._task.prepared(augment(images, drawn[these]), which[part], random)

        return StepBatch(parts=parted(len(which), plan.recipe.accumulate), whole=whole, given=given)

    def _read(self, epoch: int, first: int) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield this worker's images of every step from ``first`` on, read while the one before is computed."""
        plan, team = self._plan, self._team
        order = sampling.order(plan.train.labels, plan.recipe, plan.seed, epoch)

        def read(step: int) -> tuple[NDArray[np.int64], Tensor]:
            which = order[step * plan.batch : (step + 1) * plan.batch]
            which = which[team.rank :: team.size] if shared(team, len(which)) else which
            return which, self._images.take(which)

        with ThreadPoolExecutor(1, thread_name_prefix="pictures") as thread:
            following = thread.submit(read, first) if first < self.steps else None
            for step in range(first, self.steps):
                assert following is not None
                batch = following.result()
                following = thread.submit(read, step + 1) if step + 1 < self.steps else None
                yield batch


def _steps(images: int, batch: int, drop_last: bool) -> int:
    """Return the steps of an epoch, the same for any number of workers; a last one of a single image is left out."""
    steps = sampling.steps(images, batch, drop_last)
    if images - (steps - 1) * batch >= 2:
        return steps
    if steps == 1:
        raise WrongUse("One training image is too few: batch norms need two.")
    return steps - 1
