"""What Ctrl-C and SIGTERM do to a run: end it at once while nothing is at stake, and let it finish its rows later."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_STOPPED = 130
_ASKS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether the user asked the run to stop; ``guarded`` once there are rows to bring to rest first."""

    def __init__(self) -> None:
        self.asked = False
        self.guarded = False


class _Process:
    """Whether this process is a command and nothing else, which may be ended in the middle of an import."""

    ours = False


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Yield a Stop that the first Ctrl-C or SIGTERM sets; unguarded, and for the second one, KeyboardInterrupt."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: FrameType | None) -> None:
        if not stop.guarded:
            _interrupt(number, frame)
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    before = {number: signal.signal(number, note) for number in _ASKS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def begin() -> None:
    """Let SIGTERM end this process, which is a command, as Ctrl-C does: with exit code 130 and a sentence.

    What is ignored, as Ctrl-C is by a process that a shell started in the background, stays so.
    """
    _Process.ours = True
    for number in _ASKS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_number: int, frame: FrameType | None) -> None:
    if not _Process.ours or not _imports(frame):
        raise KeyboardInterrupt
    # The interpreter loses an exception, or makes another one of it, in parts of many an import.
    with suppress(OSError):
        os.write(2, (b"\r\x1b[2K\x1b[?25h" if os.isatty(2) else b"") + b"cvjobs: Stopped.\n")
    os._exit(_STOPPED)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
