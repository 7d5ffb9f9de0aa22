"""How busy a GPU is, as its driver counts it: the share of the time in which it computed anything."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

EVERY = 0.5  # seconds between two looks; the driver itself looks at most six times a second


Reader = Callable[[], float]  # from 0 to 1


def driver_reader(uuid: str) -> Reader | None:
    """Return what reads the counter of the GPU of an identity, None where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")
    except Exception:  # noqa: BLE001 - no figure then, of which a training needs none
        return None

    def read() -> float:
        return float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100

    return read


class GpuMeter:
    """Looks at a GPU again and again while it is open; without a reader it sees nothing."""

    def __init__(self, reader: Reader | None, every: float = EVERY) -> None:
        self._reader, self._every = reader, every
        self._seen: list[float] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Look, in a thread of its own, until the context ends."""
        if self._reader is None:
            yield
            return
        thread = threading.Thread(target=self._look, args=(self._reader,), name="gpu-meter", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._closed.set()
            thread.join()

    def taken(self) -> float | None:
        """Return the mean of what was seen since the last call, None where nothing was."""
        with self._lock:
            seen, self._seen = self._seen, []
        return sum(seen) / len(seen) if seen else None

    def _look(self, reader: Reader) -> None:
        while not self._closed.wait(self._every):
            try:
                reading = reader()
            except Exception:  # noqa: BLE001 - a driver that stops answering is no reason to end a training
                return
            with self._lock:
                self._seen.append(reading)
