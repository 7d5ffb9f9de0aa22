"""How often a thread that wants the interpreter's lock finds it held by another: looked at a few times a second.

A thread sleeps, and sees how late it gets to run. The time that it was ready and the kernel had no core for it is
counted by the kernel; what is left is the wait for the lock. A look takes 0.1 to 0.15 ms of a core.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from cvjobs.common.timing import beside

EVERY = 0.1  # s between two looks
HELD = 0.000_2  # s of a wait that say that the lock was held
SLACK = 0.000_05  # s that Linux may wake a thread late to save energy
_COUNTED = "/proc/thread-self/schedstat"  # ns on a core, ns ready without one, turns


@dataclass(frozen=True, kw_only=True)
class LockUse:
    """How often the interpreter's lock was looked at, and how often another thread held it."""

    looks: int = 0
    held: int = 0

    @property
    def share(self) -> float | None:
        """The share of the time in which the lock was held, None where nothing was seen."""
        return self.held / self.looks if self.looks else None

    def __add__(self, other: LockUse) -> LockUse:
        return LockUse(looks=self.looks + other.looks, held=self.held + other.held)


class LockMeter:
    """Looks at the lock of this process while it is open; where the kernel does not count waits it sees nothing."""

    def __init__(self, every: float = EVERY) -> None:
        self._every = every
        self._looks = self._held = 0
        self._lock = threading.Lock()

    def looking(self) -> AbstractContextManager[None]:
        """Look, in a thread of its own, until the context ends; one that ended can be followed by another."""
        return beside(self._look, "lock-meter")

    @property
    def seen(self) -> LockUse:
        """What was seen so far."""
        with self._lock:
            return LockUse(looks=self._looks, held=self._held)

    def forget(self) -> None:
        """Forget what was seen so far."""
        with self._lock:
            self._looks = self._held = 0

    def _look(self, ended: threading.Event) -> None:
        try:
            counted = os.open(_COUNTED, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            queued = _queued(counted)
            before = queued()
            began = time.monotonic()
            while not ended.wait(self._every):
                late = time.monotonic() - began - self._every
                now = queued()
                with self._lock:
                    self._looks += 1
                    self._held += late - (now - before) - SLACK > HELD
                before, began = now, time.monotonic()
        finally:
            os.close(counted)


def _queued(counted: int) -> Callable[[], float]:
    """Return what reads the seconds in which this thread was ready and had no core.

    The lock is kept meanwhile, other than by ``os.pread``: waiting for it again would belong to no look.
    """
    pread = ctypes.PyDLL(None).pread
    pread.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int64]
    content = ctypes.create_string_buffer(64)

    def queued() -> float:
        pread(counted, content, len(content) - 1, 0)
        return int(content.value.split()[1]) / 1e9

    return queued
