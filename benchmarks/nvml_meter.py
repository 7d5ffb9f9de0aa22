"""What a GPU does while something runs, as NVML says: its mean utilisation and its highest memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pynvml

EVERY = 0.1


@dataclass
class Use:
    """Samples of the utilisation (%) and of the memory (MiB) beyond what was in use before; none without a GPU."""

    busy: list[int] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float | None:
        """The mean utilisation in %."""
        return sum(self.busy) / len(self.busy) if self.busy else None

    @property
    def peak(self) -> float | None:
        """The highest memory in MiB."""
        return max(self.memory, default=None)

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
        """Sample until the end of the block."""
        use, ended = Use(), threading.Event()
        sampler = threading.Thread(target=self._sample, args=(use, ended))
        sampler.start()
        try:
            yield use
        finally:
            ended.set()
            sampler.join()

    def _sample(self, use: Use, ended: threading.Event) -> None:
        if self._handle is None:
            return
        try:
            before = self._used()
            while not ended.wait(EVERY):
                use.busy.append(pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)
                use.memory.append(max(self._used() - before, 0.0))
        except pynvml.NVMLError:  # some GPUs, and some containers, do not say
            return

    def _used(self) -> float:
        return float(pynvml.nvmlDeviceGetMemoryInfo(self._handle).used) / 2**20


def _first_visible() -> Any:
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return pynvml.nvmlDeviceGetHandleByUUID(first)
    return pynvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)
