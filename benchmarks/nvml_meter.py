"""What a GPU does while something runs, as NVML says: its mean utilisation and its highest memory."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pynvml

from cvjobs.common.gpu_meter import GpuMeter, GpuReading, handle_reader

EVERY = 0.1


@dataclass
class Use:
    """Looks at a GPU and when they were (s of the monotonic clock); none without one. ``before`` are bytes in use."""

    looks: list[tuple[float, GpuReading]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    before: int = 0

    @property
    def mean(self) -> float | None:
        """The mean utilisation in %."""
        return self.within(0.0, float("inf"))

    @property
    def peak(self) -> float | None:
        """The highest memory in MiB, beyond what was in use before."""
        used = [max(reading.memory - self.before, 0) for _, reading in self.looks]
        return max(used) / 2**20 if used else None

    def within(self, start: float, end: float) -> float | None:
        """Return the mean utilisation in % between so many seconds after the beginning."""
        busy = [100 * reading.busy for at, reading in self.looks if start <= at - self.began < end]
        return sum(busy) / len(busy) if busy else None

    def __str__(self) -> str:
        return f"GPU {self._said(self.mean, '%')}, memory {self._said(self.peak, ' MiB')}"

    @staticmethod
    def _said(value: float | None, unit: str) -> str:
        return "–" if value is None else f"{value:,.0f}{unit}"


class NvmlMeter:
    """The first GPU that commands see; without one, or without NVML, ``name`` is empty and nothing is measured."""

    def __init__(self) -> None:
        self._handle: Any = None
        self.name = self.driver = ""
        try:
            pynvml.nvmlInit()
            self._handle = _first_visible()
            self.name = pynvml.nvmlDeviceGetName(self._handle)
            self.driver = pynvml.nvmlSystemGetDriverVersion()
        except pynvml.NVMLError:
            self._handle = None

    @contextmanager
    def measured(self) -> Iterator[Use]:
        """Look until the end of the block."""
        use = Use()
        if self._handle is None:
            yield use
            return
        read = handle_reader(self._handle)
        with contextlib.suppress(pynvml.NVMLError):  # some GPUs, and some containers, do not say
            use.before = read().memory

        def kept() -> GpuReading:
            reading = read()
            use.looks.append((time.monotonic(), reading))
            return reading

        with GpuMeter(kept, EVERY).looking():
            yield use


def _first_visible() -> Any:
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return pynvml.nvmlDeviceGetHandleByUUID(first)
    return pynvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)
