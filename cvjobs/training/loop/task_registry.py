"""The task of a training, by its name: that of a file of tasks/, of which the chosen one alone is imported."""

from __future__ import annotations

from typing import cast

from cvjobs.common import plugins
from cvjobs.training.loop.training_task import TaskModule, TrainTask
from cvjobs.training.plan import TrainPlan


def of(plan: TrainPlan) -> TrainTask:
    """Return the task of a plan."""
    return named(plan.subject.task).build(plan)


def named(task: str) -> TaskModule:
    """Return the file of a task."""
    return cast(TaskModule, plugins.load("cvjobs.training.loop.tasks", "task", task))
