"""Where the time of an epoch's steps goes, as the process that makes them and the GPU's driver see it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import torch

from cvjobs.common.gpu_meter import GpuMeter, driver_reader
from cvjobs.training.step_costs import StepCosts

T = TypeVar("T")


class StepTimes:
    """A stopwatch of steps; no look at it waits for a device."""

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.monotonic) -> None:
        self._device, self._clock = device, clock
        on_gpu = device.type == "cuda"
        # By its identity: CUDA_VISIBLE_DEVICES gives devices other numbers than the driver does.
        self._meter = GpuMeter(driver_reader(str(torch.cuda.get_device_properties(device).uuid)) if on_gpu else None)
        self._data_wait = self._step = 0.0

    def metered(self) -> AbstractContextManager[None]:
        """Return a context in which a GPU is looked at."""
        return self._meter.looking()

    def waited(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield batches, and count what each is waited for."""
        self._meter.taken()  # what was seen of validation
        there = iter(batches)
        while True:
            began = self._clock()
            try:
                batch = next(there)
            except StopIteration:
                return
            finally:
                self._data_wait += self._clock() - began
            yield batch

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count what is done in the context as a step."""
        began = self._clock()
        try:
            yield
        finally:
            self._step += self._clock() - began

    def taken(self, seconds: float) -> StepCosts:
        """Return what became of the seconds since the last call."""
        whole = max(seconds, self._data_wait + self._step, 1e-9)
        on_gpu = self._device.type == "cuda"
        found = StepCosts(
            data_wait=self._data_wait / whole,
            step_share=self._step / whole,
            gpu_busy=self._meter.taken(),
            gpu_memory=torch.cuda.max_memory_allocated(self._device) if on_gpu else None,
        )
        self._data_wait = self._step = 0.0
        return found
