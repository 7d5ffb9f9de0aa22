"""Where the time of an epoch's steps goes, as the process that makes them and the GPU's driver see it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

import torch

from cvjobs.common.gpu_meter import GpuMeter, torch_reader
from cvjobs.common.timing import Stopwatch
from cvjobs.training.step_costs import StepCosts

T = TypeVar("T")


class StepTimes:
    """Stopwatches of steps; no look at them waits for a device."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._on_gpu = device, device.type == "cuda"
        self._meter = GpuMeter(torch_reader(device))
        self._data_wait, self._step = Stopwatch(), Stopwatch()

    def metered(self) -> AbstractContextManager[None]:
        """Return a context in which a GPU is looked at."""
        return self._meter.looking()

    def waited(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield batches, and count what each is waited for."""
        self._meter.taken()  # what was seen of validation
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats(self._device)
        there = iter(batches)
        while True:
            with self._data_wait.running():
                batch = next(there, None)
            if batch is None:
                return
            yield batch

    def step(self) -> AbstractContextManager[None]:
        """Return a context of which the time counts as a step's."""
        return self._step.running()

    def taken(self, seconds: float) -> StepCosts:
        """Return what became of the seconds since the last call."""
        data_wait, step = self._data_wait.seconds, self._step.seconds
        self._data_wait, self._step = Stopwatch(), Stopwatch()
        whole = max(seconds, data_wait + step, 1e-9)
        return StepCosts(
            data_wait=data_wait / whole,
            step_share=step / whole,
            gpu_busy=self._meter.taken().busy,
            gpu_memory=torch.cuda.max_memory_allocated(self._device) if self._on_gpu else None,
        )
