"""`cvjobs train --overfit-check`: whether a copy of the model learns the first batch by heart, before it is trained.

What cannot learn one batch cannot learn a thousand: images whose labels contradict each other, a rate that is far off,
and layers that are frozen too far up show here in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.layers import DropPath  # type: ignore[attr-defined]
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from cvjobs.common.errors import JobFailed, Stopped
from cvjobs.common.formatting import counted, visible
from cvjobs.training.checks import batch_size
from cvjobs.training.data import gpu_cache, labels
from cvjobs.training.data.whole_pictures import opened
from cvjobs.training.loop import task_registry
from cvjobs.training.loop.process_group import Alone
from cvjobs.training.loop.step import Learner, StepBatch, StepPart, parted
from cvjobs.training.loop.transfer import Block
from cvjobs.training.plan import TrainPlan
from cvjobs.training.recipe import lr_schedule
from cvjobs.training.recipe.augment import generator

STEPS = 200
RISE = 10  # steps in which the rate grows to the recipe's
PLAIN: dict[str, Any] = {
    "scale": (1.0, 1.0), "ratio": (1.0, 1.0), "hflip": 0.0, "vflip": 0.0, "color_jitter": 0.0, "aa": "none",
    "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0, "denoise": 0.0, "class_weights": "none",
    "mosaic": 0.0, "logit_adjustment": 0.0, "drop_last": False, "ema": 0.0, "swa": 0.0,
}  # fmt: skip

FORGETFUL = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, DropPath, StochasticDepth)

Tell = Callable[[int, int, float], bool]  # steps done, of how many, the loss; tells whether to stop


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """A batch that was learnt by heart: its images, the steps that it took, the loss before and after."""

    images: int
    steps: int
    before: float
    after: float

    def __str__(self) -> str:
        return (
            f"the first {counted(self.images, 'images are')} learnt by heart in {counted(self.steps, 'steps')}: "
            f"loss {self.before:.3g} → {self.after:.3g}"
        )


def check(plan: TrainPlan, device: torch.device, parts: int, tell: Tell) -> Learnt:
    """Train a copy of the model on the first batch of the first epoch, as it is: unaugmented, unmixed, unsmoothed.

    The rate is the recipe's highest, after a few steps up to it; a step is computed in ``parts`` parts. Nothing that
    the training itself uses is changed, random generators included.

    Raises:
        JobFailed: the batch is not learnt within ``STEPS``, or the memory does not suffice.
        Stopped: ``tell`` wants it.
    """
    plain = replace(plan, recipe=replace(plan.recipe, **PLAIN))
    try:
        with batch_size.explained(plan), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            return _check(plain, device, parts, tell)
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()  # the copy is gone, and what is to be trained asks how much is free


def _check(plan: TrainPlan, device: torch.device, parts: int, tell: Tell) -> Learnt:
    batch = _FirstBatch(plan, device, parts)
    first = loss = math.inf
    goal, right = 0.0, 0
    for step in range(STEPS):
        loss, right = batch.step(min((step + 1) / RISE, 1.0))
        if step == 0:
            first, goal = loss, batch.goal(loss)
        if not math.isfinite(loss):
            break
        if right == batch.count and loss <= goal:
            return Learnt(images=batch.count, steps=step, before=first, after=loss)
        if tell(step + 1, STEPS, loss):
            raise Stopped("Stopped: the same command checks the first batch again.")
    known = f", {right:,} of them right" if plan.classes else ""
    frozen = ", --freeze-until" if plan.recipe.freeze_until else ""
    raise JobFailed(
        f"The first {counted(batch.count, 'images are')} not learnt by heart in {STEPS} steps "
        f"(loss {first:.3g} → {loss:.3g}{known}): "
        f"look at {batch.suspect if plan.classes else '--dim'}, --lr {plan.recipe.lr:g}{frozen}, "
        "or leave out --overfit-check to train anyway."
    )


class _FirstBatch:
    """The first images, and a copy of the model that learns them; dropout is off, for it is there to forget."""

    def __init__(self, plan: TrainPlan, device: torch.device, parts: int) -> None:
        self._plan, self._device = plan, device
        self._task = task_registry.of(plan)
        self._pictures = opened(plan.train.decoded)
        self._which = self._pictures.stand_ins(plan.order(0)[: plan.batch])
        self._images = gpu_cache.mapped(self._pictures, device)
        side = lr_schedule.size(plan.recipe, 0, min(plan.transform.size or (0,)))
        self._plain = plan.augmentation(side, device)
        self._random = generator(plan.seed)
        self._parts = [self._part(these) for these in parted(self.count, parts)]
        self._learner = Learner.of(plan, Alone(device), steps=1)
        self._learner.train()
        for module in self._learner.model.modules():
            if isinstance(module, FORGETFUL):
                module.eval()

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self._which)

    @property
    def suspect(self) -> str:
        """Where labels may be wrong: two images of the same pixels with different ones, if there are."""
        paths = [self._plan.train.paths[number] for number in self._which.tolist()]
        contents = [image.numpy().tobytes() for image in self._pictures.some(self._which)]
        differing = [d for d in labels.doubles(paths, contents, self._plan.train.labels[self._which]) if d[2]]
        if not differing:
            return "labels that contradict each other"
        return f"the labels of {visible(differing[0][1])} and {visible(differing[0][0])}, which are the same picture"

    def goal(self, first: float) -> float:
        """Return the loss that is asked for, of a first one."""
        return self._mean([(self._task.goal(first, part.given()[1]), part.images) for part in self._parts])

    def step(self, rate: float) -> tuple[float, int]:
        """Return the loss and how many images are right, and learn from them at a share of the highest rate."""
        right = 0

        def criterion(outputs: Tensor, targets: Tensor) -> Tensor:
            nonlocal right
            right += int(self._task.right(outputs.detach(), targets).sum())
            return self._task.loss(outputs, targets)

        batch = StepBatch(parts=self._parts, whole=self.count)
        losses = self._learner.step(batch, criterion, rate)
        return self._mean([(loss.item(), images) for loss, images in losses]), right

    def _part(self, these: slice) -> StepPart:
        """Return some of the images, which go to the device once, as they are."""
        which = self._which[these]
        drawn = self._plain.drawn(len(which), self._random)
        changes = self._plain.settled(drawn, *self._pictures.sizes(which)).changes(slice(None))
        needed = (
            self._images.taken(which),
            changes,
            self._task.drawn(which, self._plain.size, self._random, changes),
        )
        taken, changes, known = Block(needed, self._device).sent()
        images = self._images.there(taken)

        def given() -> tuple[Any, Tensor]:
            return self._task.prepared(self._plain(images, changes), known)

        return StepPart(images=len(which), given=given)

    def _mean(self, values: Sequence[tuple[float, float]]) -> float:
        return sum(value * count for value, count in values) / self.count
