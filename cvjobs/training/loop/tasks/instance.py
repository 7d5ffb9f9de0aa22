"""Finding objects in images by their masks: torchvision's Mask R-CNN and its losses, COCO's AP of masks."""

from __future__ import annotations

from cvjobs.common.errors import WrongUse
from cvjobs.training.loop.instance_task import InstanceTask
from cvjobs.training.plan import Subject, TrainPlan
from cvjobs.training.recipe.recipe import Recipe


def build(plan: TrainPlan) -> InstanceTask:
    """See ``training_task.TaskModule``."""
    return InstanceTask(plan)


def check(recipe: Recipe, subject: Subject, side: int, multilabel: bool) -> None:  # noqa: ARG001
    """See ``training_task.TaskModule``."""
    if recipe.loss != "auto":
        raise WrongUse(f"--loss {recipe.loss} is not for --kind instance, whose losses are the detector's own.")
    if subject.init_head:
        raise WrongUse("--init-head-from-labels is for --task classify: leave it out.")
