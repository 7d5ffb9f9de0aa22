"""What the epochs of a training took, and what they waited for, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cvjobs.common import devices, rates
from cvjobs.common.formatting import count, duration, size
from cvjobs.common.gpu_peaks import bf16_peak
from cvjobs.training.plan import TrainPlan

BUSY = 0.8  # of the time that a GPU computes, from which on it is what bounds a training
WAITED = 0.2  # of the time that steps wait for images, from which on these do


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
    return [
        ("training", duration(seconds)),
        ("images seen", count(seen)),
        ("on average", rates.told(rate) or "–"),
        *_waits(history),
        *_peak(plan.flops * rate / max(workers), gpu),
        ("workers", ", ".join(map(str, workers))),
        ("machine", machine),
    ]


def used_gpu() -> str:
    """Return the name of the GPU that training used on this machine, empty without one."""
    return torch.cuda.get_device_name(0) if devices.gpus() else ""


def bound(data_wait: float, gpu_busy: float | None) -> str:
    """Return what bounded a training, from shares of its time; empty where nothing tells."""
    if data_wait >= WAITED:
        return "reading the decoded images"
    if gpu_busy is None:
        return ""
    return (
        "the GPU"
        if gpu_busy >= BUSY
        else "giving the GPU its work: larger steps (--batch-size) or --compile on take less"
    )


def _waits(history: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    data_wait, busy = (_mean(history, name) for name in ("data_wait", "gpu_busy"))
    memory = [row["gpu_memory"] for row in history if row.get("gpu_memory")]
    if data_wait is None:
        return []
    said = bound(data_wait, busy)
    return [
        ("waited for images", f"{data_wait:.0%} of the time"),
        *([("GPU busy", f"{busy:.0%} of the time")] if busy is not None else []),
        *([("bounded by", said)] if said else []),
        *([("GPU memory", size(max(memory)))] if memory else []),
    ]


def _mean(history: Sequence[dict[str, Any]], name: str) -> float | None:
    """Return the mean of a column over the time of the epochs that have it."""
    rows = [row for row in history if row.get(name) is not None]
    seconds = sum(row["seconds"] for row in rows)
    return sum(row[name] * row["seconds"] for row in rows) / seconds if seconds else None


def _peak(flops: float, gpu: str) -> list[tuple[str, str]]:
    """Return the share of a GPU's highest speed that so many operations of forward passes a second are in training."""
    peak = bf16_peak(gpu)
    return [("of the GPU's peak", f"{3 * flops / peak:.1%} (bf16)")] if peak and flops else []
