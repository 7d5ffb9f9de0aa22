"""What Ctrl-C and SIGTERM do to a run: end it at once while nothing is at stake, and let it finish its rows later."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether the user asked the run to stop; ``guarded`` once there are rows to bring to rest first."""

    def __init__(self) -> None:
        self.asked = False
        self.guarded = False


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Yield a Stop that the first Ctrl-C or SIGTERM sets; unguarded, and for the second one, KeyboardInterrupt."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(_number: int, _frame: FrameType | None) -> None:
        if stop.asked or not stop.guarded:
            raise KeyboardInterrupt
        stop.asked = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
