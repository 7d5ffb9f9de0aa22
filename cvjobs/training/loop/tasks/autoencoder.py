"""Rebuilding images from a few numbers each, which then are the vectors of images without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cvjobs.training.data.whole_pictures import AnyPictures
from cvjobs.training.loop.evaluate import answers
from cvjobs.training.loop.process_group import ProcessGroup
from cvjobs.training.loop.training_task import TaskScores
from cvjobs.training.plan import SplitPart, Subject, TrainPlan, kind
from cvjobs.training.recipe import reconstruction
from cvjobs.training.recipe.augment import Changes, generator
from cvjobs.training.recipe.recipe import Recipe


def build(plan: TrainPlan) -> AutoencoderTask:
    """See ``training_task.TaskModule``."""
    return AutoencoderTask(plan)


def check(recipe: Recipe, subject: Subject, side: int, multilabel: bool) -> None:  # noqa: ARG001
    """See ``training_task.TaskModule``."""
    reconstruction.check(recipe.loss, side)


class AutoencoderTask:
    """See ``training_task.TrainTask``; ``TaskScores.each`` are loss, mean squared error and PSNR of each image, (n, 3).

    The metric is the mean over the images of the peak signal-to-noise ratio in decibels, with every loss. With
    ``--denoise`` the network is given noisy images, in validation always with the same noise.
    """

    metric = "PSNR"
    file = "reconstructions.parquet"

    def __init__(self, plan: TrainPlan) -> None:
        self._plan = plan
        self._recipe = plan.recipe

    def drawn(self, which: NDArray[np.int64], side: int, random: torch.Generator, changes: Changes) -> None:
        """See ``training_task.TrainTask``: nothing, for noise comes from torch's own generator on the device."""

    def prepared(self, images: Tensor, drawn: None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """See ``training_task.TrainTask``; the targets are the images without their noise."""
        clean = images.clamp(0, 1)  # a change of colour may leave the range
        if not self._recipe.denoise:
            return clean, clean
        return noisy(clean, torch.randn_like(clean), self._recipe.denoise), clean

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See ``training_task.TrainTask``."""
        return reconstruction.losses(self._recipe.loss, outputs, targets).mean()

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002
        """See ``training_task.TrainTask``."""
        return torch.ones(len(targets), dtype=torch.bool)

    def goal(self, first: float, targets: Tensor) -> float:
        """See ``training_task.TrainTask``: a third of the loss of their mean, which is the same for every image.

        Half of it takes little more than the brightness of each image. Images that hardly differ are learnt where the
        loss is small beside that of the beginning.
        """
        mean = targets.mean(0, keepdim=True).expand_as(targets)
        return max(self.loss(mean, targets).item() / 3, first / 50)

    def scores(self, network: nn.Module, pictures: AnyPictures, part: SplitPart, team: ProcessGroup) -> TaskScores:  # noqa: ARG002
        """See ``training_task.TrainTask``."""

        def errors(images: Tensor, which: NDArray[np.int64]) -> Tensor:
            made = network(self.shown(images, which)).float()
            squared = (made - images).square().flatten(1).mean(1)
            each = reconstruction.losses(self._recipe.loss, made, images)
            return torch.stack([each, squared, reconstruction.noise_ratio(squared)], 1)

        plan = self._plan
        found = answers(network, errors, pictures, plan.transform, team, kind(plan.precision))
        loss, _, psnr = found.mean(0, dtype=np.float64).tolist()
        return TaskScores(loss=loss, metric=psnr, each=found)

    def shown(self, images: Tensor, which: NDArray[np.int64]) -> Tensor:
        """Return clean images, known by their numbers in their split, as the network is given them in validation."""
        if not self._recipe.denoise:
            return images
        noise = torch.stack(
            [torch.randn(images.shape[1:], generator=generator(self._plan.seed, number)) for number in which.tolist()]
        )
        return noisy(images, noise.to(images.device), self._recipe.denoise)

    def table(self, split: str, part: SplitPart, found: TaskScores) -> pa.Table:
        """See ``training_task.TrainTask``: the errors of each image."""
        return pa.table(
            {
                "path": pa.array(part.paths, pa.string()),
                "split": [split] * len(part.paths),
                **{name: found.each[:, number] for number, name in enumerate(("loss", "mse", "psnr"))},
            }
        )

    def painted(self, pictures: NDArray[np.uint8], inputs: Any, targets: Tensor) -> NDArray[np.uint8]:  # noqa: ARG002
        """See ``training_task.TrainTask``."""
        return pictures

    def captions(self, targets: Tensor) -> list[str]:
        """See ``training_task.TrainTask``."""
        return [""] * len(targets)


def noisy(images: Tensor, noise: Tensor, strength: float) -> Tensor:
    """Return images from 0 to 1 with some of a standard normal noise, clipped to the range (Vincent et al. 2008)."""
    return (images + strength * noise).clamp(0, 1)
