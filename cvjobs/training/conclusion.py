"""What a training came to: the best model on the test split, its balanced accuracy, and the summary of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from cvjobs.common import rates
from cvjobs.dataset import sealed_table
from cvjobs.dataset.sealed_table import UnreadableTable
from cvjobs.training import artifacts
from cvjobs.training.data.whole_pictures import opened
from cvjobs.training.loop import task_registry
from cvjobs.training.loop.process_group import Alone
from cvjobs.training.loop.tasks.classify import balanced_accuracy
from cvjobs.training.plan import HISTORY, SplitPart, TrainPlan
from cvjobs.training.setup import Setup
from cvjobs.training.step_costs import StepCosts
from cvjobs.training.training_summary import TrainingSummary


def scored(plan: TrainPlan, device: torch.device, check: Callable[[], None]) -> None:
    """Write the best model's scores of the val split anew where their file is gone or damaged.

    ``check`` may refuse that by raising.
    """
    task, run = task_registry.of(plan), plan.store(check)
    try:
        sealed_table.read(run, task.file)
    except UnreadableTable:
        found = task.scores(_best(plan, device), opened(plan.val.decoded), plan.val, Alone(device))
        sealed_table.write(run, task.file, task.table("val", plan.val, found))


def tested(plan: TrainPlan, part: SplitPart, device: torch.device, check: Callable[[], None]) -> float:
    """Return the best model's metric on the test split, and add its scores to those of the val split.

    ``check`` may refuse that by raising.
    """
    task, run = task_registry.of(plan), plan.store(check)
    found = task.scores(_best(plan, device), opened(part.decoded), part, Alone(device))
    before = artifacts.rows(run, task.file)
    kept = before.filter(pa.array(np.asarray(before["split"]) == "val"))
    rows = task.table("test", part, found)
    sealed_table.write(run, task.file, pa.concat_tables([kept, rows.cast(kept.schema)]))
    return found.metric


def _best(plan: TrainPlan, device: torch.device) -> nn.Module:
    network: Any = plan.trained()
    best: nn.Module = network.to(device, memory_format=torch.channels_last)
    return best


def summary(
    setup: Setup,
    plan: TrainPlan,
    parts: Mapping[str, SplitPart],
    *,
    leaks: int,
    left_out: Mapping[str, Any],
    test: float | None,
) -> TrainingSummary:
    """Return the summary of a run whose history, best model and scores are in its folder, before its ``seconds``.

    Args:
        setup: What it works with.
        plan: What it was trained by.
        parts: The images of each split that could be decoded.
        leaks: How many images of val and test are in train, too.
        left_out: The record of ``omissions``.
        test: The best model's metric on the test split, None without one.
    """
    trainable = setup.trainable
    history = artifacts.rows(plan.store(), HISTORY).to_pylist()
    metrics = [row["metric"] for row in history]
    best = metrics.index(max(metrics))
    return TrainingSummary(
        task=plan.subject.task,
        model=trainable.name,
        weights=trainable.weights.label,
        licence=plan.licence.record(),
        classes=len(plan.classes),
        inherited=trainable.inherited,
        images={name: len(part) for name, part in parts.items()},
        failed=setup.labelled.failed(parts),
        unlabelled=setup.labelled.unlabelled,
        leaks=leaks,
        left_out=dict(left_out),
        metric_name=task_registry.of(plan).metric,
        epochs=len(history),
        best_epoch=best + 1,
        metric=metrics[best],
        test_metric=test,
        train_loss=history[best]["train_loss"],
        val_loss=history[best]["val_loss"],
        final_loss=history[-1]["train_loss"],
        images_per_second=rates.rounded(_speed(plan, history)),
        seconds=0.0,
        balanced_accuracy=_balanced(plan),
        stopped_early=len(history) < plan.recipe.epochs,
        parameters=trainable.parameters,
        memory=setup.case.need(plan.batch),
        out=plan.run,
        storage=plan.storage,
        **(vars(costs) if (costs := StepCosts.mean(history)) else {}),
    )


def _speed(plan: TrainPlan, history: list[dict[str, Any]]) -> float:
    """Return the images a second of the last epoch, where that was too short of all of them together."""
    seen, seconds = len(history) * len(plan.train), sum(row["seconds"] for row in history)
    return history[-1]["images_per_second"] or rates.rate(seen, seconds, seen // plan.batch)


def _balanced(plan: TrainPlan) -> float | None:
    """Return the best model's balanced accuracy on the val split, None where images have not one class each."""
    if not plan.classes or plan.multilabel:
        return None
    rows = artifacts.rows(plan.store(), task_registry.of(plan).file)
    rows = rows.filter(pc.equal(rows["split"], "val"))
    labels, said = (np.array(rows[name].to_pylist(), object) for name in ("label", "predicted"))
    return balanced_accuracy(labels, said)
