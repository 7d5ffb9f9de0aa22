"""What a task of training does: images become inputs and targets, outputs become scores. A task is a file of tasks/."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cvjobs.training.data.whole_pictures import AnyPictures
from cvjobs.training.loop.process_group import ProcessGroup
from cvjobs.training.plan import SplitPart, Subject, TrainPlan
from cvjobs.training.recipe.augment import Changes
from cvjobs.training.recipe.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TaskScores:
    """How a network does on the n images of a split; ``each`` is floats (n, k), what k stands for is the task's.

    ``more`` are other figures of the epoch, by name, which become columns of ``history.parquet``.
    """

    loss: float
    metric: float
    each: NDArray[np.float32] | NDArray[np.float64]
    more: Mapping[str, float] = field(default_factory=dict)


class TrainTask(Protocol):
    """The task of one plan, on one worker.

    ``metric`` is the name of what the best model has the most of; ``file`` is the table of a run with a row for each
    image of ``val`` and ``test``.
    """

    metric: str
    file: str

    def drawn(self, which: NDArray[np.int64], side: int, random: torch.Generator, changes: Changes) -> Any:
        """Return what ``prepared`` needs of some images, as ``transfer.Block`` takes it.

        Args:
            which: their numbers among the training images.
            side: of the images, in pixels.
            random: where everything random comes from, on the CPU.
            changes: what is done to the images.
        """

    def prepared(self, images: Any, drawn: Any) -> tuple[Any, Tensor]:
        """Return what the network is given, and what its output is compared with, without waiting for a device.

        Args:
            images: augmented and normalised, (N, 3, H, W) float32, or what else the augmentation returns.
            drawn: what was drawn for them, on their device.
        """

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the images, a scalar, of float32 outputs."""

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return which images of a batch the outputs are right for, (N,) bool; all of them where that means nothing."""

    def goal(self, first: float, targets: Tensor) -> float:
        """Return the loss at which a batch is learnt by heart if all of it is right; ``first`` is where it began."""

    def scores(self, network: nn.Module, pictures: AnyPictures, part: SplitPart, team: ProcessGroup) -> TaskScores:
        """Return how a network does on every image of a split, each once, the same on every worker."""

    def table(self, split: str, part: SplitPart, found: TaskScores) -> pa.Table:
        """Return a row for each image, beginning with path and split."""

    def painted(self, pictures: NDArray[np.uint8], inputs: Any, targets: Tensor) -> NDArray[np.uint8]:
        """Return pictures of the inputs, uint8 (N, H, W, 3), with what is to be said of places in them painted over."""

    def captions(self, targets: Tensor) -> list[str]:
        """Return what the targets are, in words, one for each; empty where nothing is to be said."""


class TaskModule(Protocol):
    """What a file of tasks/ offers."""

    def build(self, plan: TrainPlan) -> TrainTask:
        """Return the task of a plan."""

    def check(self, recipe: Recipe, subject: Subject, side: int, multilabel: bool) -> None:
        """Raise WrongUse for settings that the task, its images (``side`` in pixels) or its labels cannot have."""
