"""What the epochs of a training took; what they waited for is in ``step_costs``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cvjobs.common import devices, rates
from cvjobs.common.formatting import count, duration, size
from cvjobs.common.gpu_peaks import bf16_peak
from cvjobs.training.plan import TrainPlan
from cvjobs.training.recipe import lr_schedule
from cvjobs.training.step_costs import StepCosts


def costs(plan: TrainPlan, history: Sequence[dict[str, Any]], machine: str, gpu: str = "") -> list[tuple[str, str]]:
    """Return what the epochs so far have taken, over all commands that a run was continued by.

    ``history`` has rows of ``artifacts.Epoch``, without its last columns where a version before wrote them; ``machine``
    is this one, and ``gpu`` the name of its GPU for torch, if training used one.
    """
    if not history:
        return []
    seconds = sum(row["seconds"] for row in history)
    seen = len(history) * len(plan.train)
    rate = rates.rate(seen, seconds, seen // plan.batch)
    workers = sorted({row["workers"] for row in history})
    mean = StepCosts.mean(history)
    return [
        ("training", duration(seconds)),
        ("images seen", count(seen)),
        ("on average", rates.told(rate) or "–"),
        *([("GPU memory", size(mean.gpu_memory))] if mean and mean.gpu_memory else []),
        *_peak(_flops(plan, len(history)) * rate / max(workers), gpu),
        ("workers", ", ".join(map(str, workers))),
        ("machine", machine),
    ]


@dataclass(frozen=True, kw_only=True)
class Waits:
    """The bars (what, its share of the time, the share in words), the one that bounded, and a sentence about it.

    ``metered`` tells whether a bar is the GPU's own, as its driver counts.
    """

    bars: list[tuple[str, float, str]]
    top: str
    words: str
    metered: bool


def waits(plan: TrainPlan, history: Sequence[dict[str, Any]]) -> Waits | None:
    """Return where the time of the steps went, None where only versions before made them; see ``costs``."""
    mean = StepCosts.mean(history)
    if mean is None:
        return None
    top, words = mean.bound(sum(row["seconds"] for row in history), plan.compiled)
    return Waits(bars=mean.bars, top=top, words=words, metered=mean.gpu_busy is not None)


def used_gpu() -> str:
    """Return the name of the GPU that training used on this machine, empty without one."""
    return torch.cuda.get_device_name(0) if devices.gpus() and not devices.simulated() else ""


def _flops(plan: TrainPlan, epochs: int) -> float:
    """Return the operations of an image's forward pass, the mean over so many epochs; 0.0 where they are unknown."""
    recipe = plan.recipe
    if recipe.freeze_until:  # what is frozen has no backward pass
        return 0.0
    if len(recipe.img_size) < 2:
        return plan.flops
    areas = [lr_schedule.size(recipe, epoch, 0) ** 2 for epoch in range(epochs)]
    return plan.flops * sum(areas) / epochs / max(recipe.img_size) ** 2


def _peak(flops: float, gpu: str) -> list[tuple[str, str]]:
    """Return the share of a GPU's highest speed that so many operations of forward passes a second are in training."""
    peak = bf16_peak(gpu)
    return [("of the GPU's peak", f"{3 * flops / peak:.1%} (bf16)")] if peak and flops else []
