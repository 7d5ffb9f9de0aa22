"""What a GPU does, as its driver says: the share of the time in which it computed anything, and its memory in use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from cvjobs.common.timing import beside

EVERY = 0.5  # seconds between two looks; the driver itself looks at most six times a second


@dataclass(frozen=True)
class GpuReading:
    """One look: ``busy`` from 0 to 1, and the bytes that all processes have in use."""

    busy: float
    memory: int


@dataclass(frozen=True, kw_only=True)
class GpuUse:
    """What some looks saw: how many there were, their ``busy`` added up, and the most ``memory`` (bytes)."""

    looks: int = 0
    total: float = 0.0
    memory: int = 0

    @property
    def busy(self) -> float | None:
        """The mean share of the time in which the GPU computed, None where nothing was seen."""
        return self.total / self.looks if self.looks else None

    def __add__(self, other: GpuUse) -> GpuUse:
        memory = max(self.memory, other.memory)
        return GpuUse(looks=self.looks + other.looks, total=self.total + other.total, memory=memory)


Reader = Callable[[], GpuReading]


def handle_reader(handle: Any) -> Reader:
    """Return what reads the counters of an NVML handle; it raises what NVML raises."""
    import pynvml

    def read() -> GpuReading:
        busy = float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
        return GpuReading(busy, int(pynvml.nvmlDeviceGetMemoryInfo(handle).used))

    return read


def driver_reader(uuid: str) -> Reader | None:
    """Return what reads the counters of the GPU of an identity, None where there are none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return handle_reader(pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}"))
    except Exception:  # noqa: BLE001 - no figure then, which no run needs
        return None


def torch_reader(device: Any) -> Reader | None:
    """Return what reads the counters of torch's device (or its name), None where there are none.

    By its identity: CUDA_VISIBLE_DEVICES gives devices other numbers than the driver does.
    """
    import torch

    if torch.device(device).type != "cuda" or not torch.cuda.is_available():
        return None
    return driver_reader(str(torch.cuda.get_device_properties(device).uuid))


class GpuMeter:
    """Looks at a GPU again and again while it is open; without a reader it sees nothing."""

    def __init__(self, reader: Reader | None, every: float = EVERY) -> None:
        self._reader, self._every = reader, every
        self._seen = GpuUse()
        self._lock = threading.Lock()

    def looking(self) -> AbstractContextManager[None]:
        """Look, in a thread of its own, until the context ends; one that ended can be followed by another."""
        return beside(self._look, "gpu-meter") if self._reader else nullcontext()

    @property
    def seen(self) -> GpuUse:
        """What was seen since ``taken`` was called last."""
        with self._lock:
            return self._seen

    def taken(self) -> GpuUse:
        """Return what was seen since the last call."""
        with self._lock:
            seen, self._seen = self._seen, GpuUse()
        return seen

    def _look(self, ended: threading.Event) -> None:
        assert self._reader is not None
        while not ended.wait(self._every):
            try:
                reading = self._reader()
            except Exception:  # noqa: BLE001 - a driver that stops answering is no reason to end what is looked at
                return
            with self._lock:
                self._seen += GpuUse(looks=1, total=reading.busy, memory=reading.memory)
