"""Where the time of a training's steps went, in shares, and in words what bounded it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cvjobs.common.formatting import percent

BUSY = 0.8  # of the time that a GPU computes, from which on it is what bounds a training
WAITED = 0.2  # of the time that the steps of a CPU wait for images, from which on these do
LEAST = 2.0  # seconds of steps, below which nothing bounds for long
GPU, IMAGES = "the GPU computed", "waited for images"
_FASTER = "More cores, or a faster disk for the decoded images, would help."
_CORES = "A GPU, or more cores, would help."


@dataclass(frozen=True, kw_only=True)
class StepCosts:
    """Of the steps of one process, shares from 0 to 1 of their time: waiting for images, and the steps.

    A step is computed in its share on a CPU; to a GPU it is only given in it. ``gpu_busy`` is the share of the time in
    which the GPU computed anything, None without one whose driver tells, and ``gpu_memory`` the most bytes that torch
    had there, None without a GPU.
    """

    data_wait: float
    step_share: float
    gpu_busy: float | None
    gpu_memory: int | None

    @classmethod
    def mean(cls, history: Sequence[Mapping[str, Any]]) -> StepCosts | None:
        """Return those of all epochs, rows of ``artifacts.Epoch``; None where a version before measured none of them.

        Epochs count by their seconds.
        """
        data_wait, step_share = _mean(history, "data_wait"), _mean(history, "step_share")
        if data_wait is None or step_share is None:
            return None
        memory = [row["gpu_memory"] for row in history if row.get("gpu_memory")]
        return cls(
            data_wait=data_wait,
            step_share=step_share,
            gpu_busy=_mean(history, "gpu_busy"),
            gpu_memory=max(memory, default=None),
        )

    @property
    def step(self) -> str:
        """What the process did in a step."""
        return "computed" if self.gpu_memory is None else "gave the GPU its work"

    @property
    def _rest(self) -> float:
        return 1 - self.data_wait - self.step_share

    @property
    def bars(self) -> list[tuple[str, float, str]]:
        """The bars of a page: (what, its share of the time, the share in words)."""
        shares = [(IMAGES, self.data_wait), (self.step, self.step_share)]
        if self._rest >= 0.01:
            shares.append(("did the rest", self._rest))
        if self.gpu_busy is not None:
            shares.insert(0, (GPU, self.gpu_busy))
        return [(what, share, percent(share)) for what, share in shares]

    def bound(self, seconds: float, compiled: bool = False) -> tuple[str, str]:
        """Return which of the bars bounded a training, empty where none did alone, and a sentence about it.

        ``seconds`` are those of its steps, ``compiled`` tells whether torch.compile was used.
        """
        if seconds < LEAST:
            return "", "The steps took so little time that nothing bounded them for long."
        return self._bound_on_cpu() if self.gpu_memory is None else self._bound_on_gpu(compiled)

    def _bound_on_cpu(self) -> tuple[str, str]:
        waited, computed = percent(self.data_wait), percent(self.step_share)
        if self.data_wait >= WAITED:
            return IMAGES, f"Images bounded the training: it waited for them {waited} of the time. {_FASTER}"
        return self.step, f"The processor bounded the training: it computed {computed} of the time. {_CORES}"

    def _bound_on_gpu(self, compiled: bool) -> tuple[str, str]:
        waited = f"the process waited for images {percent(self.data_wait)} of the time"
        if self.gpu_busy is None:
            return "", f"The GPU's driver does not say how busy the GPU was; {waited}."
        busy = f"busy {percent(self.gpu_busy)} of the time"
        # Steps are given to a GPU ahead of it: while it computes, a wait of the process costs nothing.
        if self.gpu_busy >= BUSY:
            return GPU, f"The GPU bounded the training: it was {busy}. A faster one, or a second one, would help."
        if self._rest > max(self.data_wait, self.step_share):
            return "", f"Nothing bounded the training alone: the GPU was {busy}, and {waited}."
        if self.data_wait > self.step_share:
            return IMAGES, f"Images bounded the training: {waited}, and the GPU was {busy}. {_FASTER}"
        gave = f"giving it its work bounded the training, and took the process {percent(self.step_share)} of the time"
        remedy = "Larger steps (--batch-size)" if compiled else "Larger steps (--batch-size), or --compile on,"
        return self.step, f"The GPU was {busy}: {gave}. {remedy} would help."

    def __str__(self) -> str:
        told = [f"{IMAGES} {percent(self.data_wait)} of the time", f"{self.step} {percent(self.step_share)}"]
        if self.gpu_busy is not None:
            told.append(f"the GPU was busy {percent(self.gpu_busy)}")
        return f"training {', '.join(told)}"


def _mean(history: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Return the mean of a column over the time of the epochs that have it."""
    rows = [row for row in history if row.get(name) is not None]
    seconds = sum(row["seconds"] for row in rows)
    return sum(row[name] * row["seconds"] for row in rows) / seconds if seconds else None
