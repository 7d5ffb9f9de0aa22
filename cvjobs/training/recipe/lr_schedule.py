"""The learning rate, the image size and the end of a training, each a pure function of the position and the metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from cvjobs.training.recipe.recipe import Recipe

_LOW = 1 / 25  # where one-cycle and cyclic start, as a share of the highest rate
_RISE = 0.3  # the share of one-cycle's steps in which it rises
OPEN = ("constant", "step", "cyclic", "plateau")  # schedules in which no rate follows from the number of epochs


def rate(recipe: Recipe, step: int, steps_per_epoch: int, metrics: Sequence[float] = ()) -> float:
    """Return the learning rate of a step as a share, from 0 to 1, of the highest one.

    The warm-up is linear and never 0; the schedule follows over the epochs that are left.

    Args:
        recipe: ``sched``, ``epochs``, ``warmup_epochs``, ``decay_epochs``, ``decay_rate`` and ``min_lr`` of it.
        step: Steps done before this one, over all epochs.
        steps_per_epoch: Steps of one epoch.
        metrics: The validation metric after every finished epoch, the more the better; ``plateau`` alone reads it.
    """
    warmup = recipe.warmup_epochs * steps_per_epoch
    total = recipe.epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (math.floor(warmup) + 1)
    if recipe.sched == "plateau":
        share = recipe.decay_rate ** _decays(metrics, recipe.decay_epochs)
    elif recipe.sched in ("step", "cyclic"):
        share = _BY_EPOCH[recipe.sched]((step - warmup) / steps_per_epoch, recipe)
    else:
        share = _BY_SHARE[recipe.sched]((step - warmup) / max(total - 1 - warmup, 1))
    return max(share, recipe.min_lr)


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Give every group of an optimizer this share of its highest rate."""
    highest: float = optimizer.defaults["lr"]
    for group in optimizer.param_groups:
        group["lr"] = highest * share * group.get("lr_scale", 1.0)


def size(recipe: Recipe, epoch: int, own: int) -> int:
    """Return the side of the images of an epoch in pixels; ``own`` is the model's.

    Between two sizes it grows evenly, in multiples of 16 but for the two themselves.
    """
    if len(recipe.img_size) < 2:
        return recipe.img_size[0] if recipe.img_size else own
    first, last = recipe.img_size
    if epoch in (0, recipe.epochs - 1):
        return last if epoch else first
    between = 16 * round((first + (last - first) * epoch / (recipe.epochs - 1)) / 16)
    return min(max(between, min(first, last)), max(first, last))


def bound(recipe: Recipe) -> str:
    """Return what follows from the number of epochs, as a sentence's beginning; empty where nothing does but the end.

    Training by such a recipe may go on for more epochs, to the same state as if it had had them from the start.
    """
    if recipe.sched not in OPEN:
        return f"the rates of --sched {recipe.sched} follow from"
    if len(recipe.img_size) > 1:
        return "the sizes of --img-size follow from"
    if recipe.mosaic:
        return "which epochs have a --mosaic follows from"
    return "which epochs --swa averages follows from" if recipe.swa else ""


def finished(recipe: Recipe, metrics: Sequence[float]) -> bool:
    """Whether a training ends after these epochs' metrics, the more the better."""
    stale = bool(recipe.patience) and _since_best(metrics) >= recipe.patience
    return stale or len(metrics) >= recipe.epochs


def _since_best(metrics: Sequence[float]) -> int:
    return len(metrics) - 1 - metrics.index(max(metrics)) if metrics else 0


def _decays(metrics: Sequence[float], patience: float) -> int:
    """Return how often the rate has decayed: each time ``patience`` epochs brought nothing better."""
    best, stale, decays = -math.inf, 0, 0
    for metric in metrics:
        better = metric > best
        best = max(best, metric)
        stale = 0 if better else stale + 1
        if stale >= patience:
            stale, decays = 0, decays + 1
    return decays


def _cosine(share: float) -> float:
    return (1 + math.cos(math.pi * min(share, 1.0))) / 2


def _linear(share: float) -> float:
    """Fall to 0 at the end of the budget (Li et al. 2020)."""
    return max(1 - share, 0.0)


def _onecycle(share: float) -> float:
    """Rise from ``_LOW`` and fall to 0, both as a cosine (Smith and Topin 2017)."""
    if share < _RISE:
        return _LOW + (1 - _LOW) * (1 - _cosine(share / _RISE))
    return _cosine((share - _RISE) / (1 - _RISE))


def _step(epochs: float, recipe: Recipe) -> float:
    return recipe.decay_rate ** math.floor(epochs / recipe.decay_epochs)


def _cyclic(epochs: float, recipe: Recipe) -> float:
    """Rise and fall evenly between ``_LOW`` and 1 (Smith 2017)."""
    half = epochs / recipe.decay_epochs % 2
    return _LOW + (1 - _LOW) * (1 - abs(1 - half))


_BY_SHARE: dict[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,  # noqa: ARG005
    "cosine": _cosine,
    "linear": _linear,
    "onecycle": _onecycle,
}
_BY_EPOCH: dict[str, Callable[[float, Recipe], float]] = {"step": _step, "cyclic": _cyclic}
