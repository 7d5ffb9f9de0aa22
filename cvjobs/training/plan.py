"""What every worker of a training is told: small values and the places of the rest; and what it leaves in the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cvjobs import models, weights
from cvjobs.recipes.settings import Recipe
from cvjobs.records import Transform, digest, facts
from cvjobs.trainees import Trainee
from cvjobs.training.cache import Decoded

MODEL, HISTORY, PREDICTIONS, ERRORS, LEAKS = (
    "model.safetensors",
    "history.parquet",
    "predictions.parquet",
    "errors.parquet",
    "leaks.parquet",
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """The images of a split that could be decoded: their paths and labels, both in the order of the pictures."""

    decoded: Decoded
    paths: Sequence[str]
    labels: NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One training. ``batch`` is the images of a step over all workers; ``side`` None is the model's own size."""

    run: str
    model: str
    weights: str
    weights_sha256: str
    classes: tuple[str, ...]
    several: bool
    side: int | None
    seed: int
    recipe: Recipe
    batch: int
    precision: str
    transform: Transform
    train: Part
    val: Part

    def trainee(self) -> Trainee:
        """Return the model as training begins with it."""
        return models.trainee(
            self.model, weights=self.weights, classes=len(self.classes), side=self.side, seed=self.seed
        )

    @property
    def counts(self) -> list[int]:
        """How many training images show each class."""
        if self.several:
            return [int(count) for count in self.train.labels.sum(0)]
        return [int(count) for count in np.bincount(self.train.labels, minlength=len(self.classes))]

    @property
    def identity(self) -> str:
        """What a checkpoint can be continued with: the same images in the same order, and the same recipe."""
        return digest(
            {
                "paths": digest({"paths": list(self.train.paths)}),
                "labels": self.train.labels.tolist(),
                "recipe": facts(self.recipe),
                "batch": self.batch,
                "seed": self.seed,
                "weights": self.weights_sha256,
                "precision": self.precision,
            }
        )

    def metadata(self, epoch: int, metric: float) -> dict[str, str]:
        """Return the metadata of the model's file, by which it is a model everywhere."""
        about = {
            "model": self.model,
            "classes": len(self.classes),
            "transform": facts(self.transform),
            "epoch": epoch,
            "metric": metric,
        }
        activation: weights.Activation = "sigmoid" if self.several else "softmax"
        return {"labels": json.dumps(list(self.classes)), "activation": activation, "cvjobs": json.dumps(about)}


def kind(precision: str) -> torch.dtype:
    """Return the type that a network computes in."""
    return torch.bfloat16 if precision == "bf16" else torch.float32
