"""One step of an optimizer: forward in parts, scaled loss, backward, clipping, update, average of the weights.

Training, the search for a rate, the overfit check and the trial of a batch size all make their steps here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from cvjobs.common.errors import JobFailed
from cvjobs.training.loop.gradient_pass import Criterion, GradientPass, PlainPass
from cvjobs.training.loop.process_group import ProcessGroup, shared
from cvjobs.training.plan import TrainPlan, kind
from cvjobs.training.recipe import lr_schedule, optimizers
from cvjobs.training.recipe.averaging import Average
from cvjobs.training.recipe.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class StepPart:
    """Images that are computed at once: their number; ``given`` returns the inputs and the targets.

    Inputs are images (n, 3, H, W), or a dataclass of tensors with such images first.
    """

    images: int
    given: Callable[[], tuple[Any, Tensor]]


@dataclass(frozen=True, kw_only=True)
class StepBatch:
    """One step's images on one worker, in parts; ``whole`` is the images of the step over all workers."""

    parts: Sequence[StepPart]
    whole: int


def parted(images: int, accumulate: int) -> list[slice]:
    """Return the places of a worker's images in as many parts as asked for, none of a single image."""
    parts = max(min(accumulate, images // 2), 1)
    ends = [number * (images // parts) + min(number, images % parts) for number in range(parts + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


class Learner:
    """A network with its optimizer on one worker of a team; ``done`` counts its steps."""

    def __init__(
        self, module: nn.Module, recipe: Recipe, precision: str, team: ProcessGroup, *, batch: int, steps: int
    ) -> None:
        """Freeze a module as the recipe says, and move it to the team's device.

        Args:
            module: Changed from now on.
            recipe: What freezes, clips, averages and optimizes.
            precision: As ``plan.kind`` takes it.
            team: Who shares a step.
            batch: Images of a step over all workers.
            steps: Of an epoch.

        Raises:
            WrongUse: the module has no layer of the name that the recipe freezes up to.
        """
        if recipe.freeze_until:
            optimizers.freeze(module, recipe.freeze_until)
        self._recipe, self._team, self._batch = recipe, team, batch
        self.model: nn.Module = module.to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = Average(self.model, recipe, steps) if recipe.ema or recipe.swa else None
        self.optimizer = optimizers.build(self.model, recipe, batch)
        # Without float16 it does nothing: gradients of that are lost below 6e-8 unless they are scaled.
        self.scaler = torch.amp.GradScaler(team.device.type, enabled=kind(precision) == torch.float16)
        self.done = 0
        self._network = team.wrap(self.model)
        self._plain = PlainPass(network=self._network, scaler=self.scaler, kind=kind(precision))
        self._whole: GradientPass = self._plain

    @classmethod
    def of(cls, plan: TrainPlan, team: ProcessGroup, steps: int) -> Learner:
        """Return what a plan begins with; raises JobFailed where this machine has other weights than the driver."""
        trainable = plan.trainable()
        if trainable.weights.sha256 != plan.weights_sha256:
            raise JobFailed(
                f"The weights of {trainable.name} differ between this machine and the driver: make them equal."
            )
        return cls(trainable.module, plan.recipe, plan.precision, team, batch=plan.batch, steps=steps)

    @property
    def scored(self) -> nn.Module:
        """What validation scores: the average of the weights where the recipe has one, else the weights."""
        return self.average.module if self.average is not None else self.model

    def hasten(self, way: Callable[[PlainPass], GradientPass]) -> None:
        """Compute whole batches another way, which leaves the same gradients; those of fewer images as before."""
        self._whole = way(self._plain)

    def train(self) -> None:
        """Put the network in training mode, but for frozen layers."""
        self._network.train()
        optimizers.set_training(self.model, self._recipe.freeze_until)

    def step(self, batch: StepBatch, criterion: Criterion, rate: float) -> list[tuple[Tensor, float]]:
        """Learn from a batch at a share of the highest rate.

        Returns:
            The loss of each part before the step, a scalar on the device, and how many images it stands for.
        """
        team = self._team
        lr_schedule.set_rate(self.optimizer, rate)
        computed = self._whole if batch.whole == self._batch else self._plain
        losses = []
        for number, part in enumerate(batch.parts):
            with torch.no_grad():
                inputs, targets = part.given()
            last = number + 1 == len(batch.parts)
            with nullcontext() if last else team.accumulating(self._network):
                # The mean over the team of these is the mean over the images of the step.
                weight = part.images if shared(team, batch.whole) else part.images / team.size
                loss = computed(inputs, targets, criterion, weight * team.size / batch.whole)
            losses.append((loss, weight))
        self._update()
        return losses

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        optimizers.clip(self.model, self._recipe)
        self.scaler.step(self.optimizer)  # not where a gradient overflowed, on any worker: its scale was too large
        self.scaler.update()
        self.optimizer.zero_grad()
        self.done += 1
        if self.average is not None:
            self.average.update(self.model, self.done)
