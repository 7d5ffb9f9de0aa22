"""Training images as the network sees them, augmented and mixed, for the page of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from cvjobs.html.thumbnails import Thumbnail, encoded
from cvjobs.training.data.few_images import FewImages
from cvjobs.training.data.outcomes import nothing
from cvjobs.training.data.whole_pictures import opened
from cvjobs.training.loop import task_registry
from cvjobs.training.plan import TrainPlan
from cvjobs.training.recipe import lr_schedule
from cvjobs.training.recipe.augment import generator

COUNT = 16


@dataclass(frozen=True)
class TrainingSample:
    """A picture of what was trained on, the image that it is made of, and its classes with their shares if mixed."""

    image: Thumbnail
    path: str
    shown: str


def samples(
    plan: TrainPlan, glance: Callable[[], None] = nothing, few: FewImages | None = None
) -> list[TrainingSample]:
    """Return images of the first epoch, at the size of the last one; ``glance`` is called while they are waited for.

    Where those of the plan are not on this machine, some ``few`` of them are.
    """
    recipe, transform = plan.recipe, plan.transform
    pictures = opened(few.decoded if few else plan.train.decoded, glance)
    which = few.numbers if few else pictures.stand_ins(plan.order(0)[:COUNT])
    rows = few.rows if few else which
    side = lr_schedule.size(recipe, recipe.epochs - 1, min(transform.size or (0,)))
    random = generator(plan.seed, 0)
    augment = plan.augmentation(side, torch.device("cpu"))
    settled = augment.settled(augment.drawn(len(which), random), *pictures.sizes(rows))
    changes = settled.changes(slice(None))
    augmented = augment(pictures.some(rows), changes)
    task = task_registry.of(plan)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        inputs, targets = task.prepared(augmented, task.drawn(which, side, random, changes))
    std, mean = (torch.tensor(values).view(3, 1, 1) for values in (transform.std, transform.mean))
    images = inputs if isinstance(inputs, torch.Tensor) else inputs.images
    shown = ((images * std + mean) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    shown = task.painted(shown, inputs, targets)
    return [
        TrainingSample(encoded(Image.fromarray(np.ascontiguousarray(image))), plan.train.paths[number], caption)
        for image, number, caption in zip(shown, which.tolist(), task.captions(targets), strict=True)
    ]
