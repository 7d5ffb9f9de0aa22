"""Naming what images show: one class each, by softmax, or any number of them, by sigmoids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cvjobs.common.errors import WrongUse
from cvjobs.evaluation.metrics import ranking
from cvjobs.training.data.whole_pictures import AnyPictures
from cvjobs.training.loop.evaluate import answers
from cvjobs.training.loop.process_group import ProcessGroup
from cvjobs.training.loop.training_task import TaskScores
from cvjobs.training.plan import SplitPart, Subject, TrainPlan, kind
from cvjobs.training.recipe import losses, mixing
from cvjobs.training.recipe.augment import Changes
from cvjobs.training.recipe.mixing import Mix
from cvjobs.training.recipe.recipe import OF_PIXELS, RECONSTRUCTION, Recipe


def build(plan: TrainPlan) -> ClassifyTask:
    """See ``training_task.TaskModule``."""
    return ClassifyTask(plan)


def check(recipe: Recipe, subject: Subject, side: int, multilabel: bool) -> None:  # noqa: ARG001
    """See ``training_task.TaskModule``."""
    if recipe.loss in (*RECONSTRUCTION, *OF_PIXELS):
        task = "autoencoder" if recipe.loss in RECONSTRUCTION else "segment"
        raise WrongUse(f"--loss {recipe.loss} is for --task {task}: leave it out.")
    losses.build(recipe, [1] * len(subject.classes), multilabel)


@dataclass(frozen=True, kw_only=True)
class LabelsToMix:
    """The labels of some images, (N,) or (N, C), and how these are mixed."""

    labels: Tensor
    mix: Mix | None


class ClassifyTask:
    """See ``training_task.TrainTask``; ``TaskScores.each`` are probabilities of the classes, (n, classes).

    The metric is top-1, of several labels the mean over the classes of the average precision.
    """

    file = "predictions.parquet"

    def __init__(self, plan: TrainPlan) -> None:
        self._plan = plan
        self._criterion = losses.build(plan.recipe, plan.counts, plan.multilabel)
        self.metric = "mAP" if plan.multilabel else "top-1"

    def drawn(
        self,
        which: NDArray[np.int64],
        side: int,
        random: torch.Generator,
        changes: Changes,  # noqa: ARG002
    ) -> LabelsToMix:
        """See ``training_task.TrainTask``."""
        labels = torch.from_numpy(self._plan.train.labels[which])
        return LabelsToMix(labels=labels, mix=mixing.draw(len(which), side, self._plan.recipe, random))

    def prepared(self, images: Tensor, drawn: LabelsToMix) -> tuple[Tensor, Tensor]:
        """See ``training_task.TrainTask``; targets are (N,) class numbers, or (N, C) shares where mixed or several."""
        return mixing.mixed(images, drawn.labels, len(self._plan.classes), drawn.mix)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See ``training_task.TrainTask``."""
        loss: Tensor = self._criterion.to(outputs.device)(outputs, targets)
        return loss

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See ``training_task.TrainTask``: the class, or every one of several."""
        if self._plan.multilabel:
            return ((outputs > 0) == (targets > 0.5)).all(1)
        return outputs.argmax(1) == targets

    def goal(self, first: float, targets: Tensor) -> float:  # noqa: ARG002
        """See ``training_task.TrainTask``: a fifth of it, which is one guess in five where it began with guessing."""
        return max(first / 5, 0.1)

    def scores(self, network: nn.Module, pictures: AnyPictures, part: SplitPart, team: ProcessGroup) -> TaskScores:
        """See ``training_task.TrainTask``."""
        plan = self._plan
        dtype = kind(plan.precision)
        logits = answers(network, lambda images, _: network(images), pictures, plan.transform, team, dtype)
        return scores(logits, part.labels, multilabel=plan.multilabel)

    def table(self, split: str, part: SplitPart, found: TaskScores) -> pa.Table:
        """See ``training_task.TrainTask``: what each image shows, what the model says, and with which probability.

        Of several labels ``scores`` are the probabilities of all classes.
        """
        first = found.each.argmax(1)
        names = np.array(self._plan.classes, object)
        if self._plan.multilabel:
            more = {"scores": pa.array(list(found.each), pa.list_(pa.float32()))}
            truth: list[Any] = [names[np.flatnonzero(row)].tolist() for row in part.labels]
            said: list[Any] = [names[np.flatnonzero(row > 0.5)].tolist() for row in found.each]
        else:
            more = {}
            truth, said = names[part.labels].tolist(), names[first].tolist()
        return pa.table(
            {
                "path": pa.array(part.paths, pa.string()),
                "split": [split] * len(part.paths),
                "label": truth,
                "predicted": said,
                "score": found.each[np.arange(len(first)), first],
                **more,
            }
        )

    def painted(self, pictures: NDArray[np.uint8], inputs: Any, targets: Tensor) -> NDArray[np.uint8]:  # noqa: ARG002
        """See ``training_task.TrainTask``."""
        return pictures

    def captions(self, targets: Tensor) -> list[str]:
        """See ``training_task.TrainTask``: ``cat``, ``cat, dog`` of several labels, ``cat 0.70, dog 0.30`` mixed."""
        return [self._caption(target) for target in targets]

    def _caption(self, target: Tensor) -> str:
        classes = self._plan.classes
        if target.ndim == 0:
            return classes[int(target)]
        order = target.argsort(descending=True, stable=True).tolist()
        parts = [(classes[number], float(target[number])) for number in order if target[number] >= 0.005]
        whole = all(share == 1 for _, share in parts)
        return ", ".join(name if whole else f"{name} {share:.2f}" for name, share in parts[:3])


def scores(logits: NDArray[np.float32], labels: NDArray[np.integer], *, multilabel: bool) -> TaskScores:
    """Return the scores of logits (n, classes) against labels; the loss is the cross-entropy, binary of sigmoids."""
    found = torch.from_numpy(logits).double()
    truth = torch.from_numpy(labels)
    if multilabel:
        loss = functional.binary_cross_entropy_with_logits(found, truth.double())
        probabilities = found.sigmoid()
        metric = ranking.mean_average_precision(probabilities.numpy(), labels)
    else:
        loss = functional.cross_entropy(found, truth)
        probabilities = found.softmax(1)
        metric = float((found.argmax(1) == truth).double().mean())
    return TaskScores(each=probabilities.float().numpy(), loss=float(loss), metric=metric)


def balanced_accuracy(labels: NDArray[np.object_], said: NDArray[np.object_]) -> float:
    """Return the mean over the classes that are there of the share of their images that is right."""
    return float(np.mean([(said[labels == name] == name).mean() for name in np.unique(labels)]))
