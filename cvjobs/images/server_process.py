"""The process that forks decode children, and the idle one that a command leaves to the next of the same Python.

It takes seconds to be ready. Python callers that run one command after another wait for it once.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from cvjobs.common import control_groups
from cvjobs.images import decoder_server
from cvjobs.images.ipc import receive, send

START = 120.0
LINGER = 60.0
_FAREWELL = 0.5


class ServerProcess:
    """A preloaded process that forks a child for each request; starting it returns before it is ready."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair()
        self.owner, self.path, self.ready = os.getpid(), _path(), False
        self._pids: list[int] = []
        self._killed = control_groups.killed()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process that writes it
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MALLOC_ARENA_MAX": "2"}
        environment["PYTHONPATH"] = self.path
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", decoder_server.__name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=environment,
        )
        theirs.close()

    def fork(self, message: dict[str, Any], descriptors: list[int]) -> int:
        """Return the process id of a new child that gets the descriptors; raises EOFError or OSError where it died."""
        send(self.control, message, descriptors)
        answer, _ = receive(self.control)
        self._pids.append(answer["pid"])
        return self._pids[-1]

    def wait(self) -> None:
        """Wait until the process is ready; raises EOFError or OSError where it died before."""
        if not self.ready:
            self.control.settimeout(START)
            receive(self.control)
            self.ready = True

    def idle(self) -> bool:
        """Whether the process lives and its children have ended; those that are just ending get half a second."""
        end = time.monotonic() + _FAREWELL
        while any(_alive(pid) for pid in self._pids):
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        self._pids.clear()
        return self.process.poll() is None

    def starved(self) -> bool:
        """Whether the system ended the process for the memory of its control group."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(_FAREWELL) == -signal.SIGKILL and control_groups.killed() > self._killed
        return False

    def last_words(self) -> str:
        """Return the last line that the process printed."""
        if self._log.closed:
            return "they were ended"
        self._log.seek(0)
        return self._log.read()[-2000:].decode(errors="replace").strip().rsplit("\n", 1)[-1]

    def end(self) -> None:
        """End the process and with it children that hang; the others end when their sockets close."""
        self.control.close()
        if not self.ready:  # it is still importing, for seconds, and has no children
            self.process.kill()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


class _Shelf:
    """Holds at most one idle process, and ends it after a minute or with this Python."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: ServerProcess | None = None
        self._timer: threading.Timer | None = None

    @property
    def kept(self) -> int | None:
        """The process id of the idle process."""
        held = self._held
        return None if held is None else held.process.pid

    def take(self) -> ServerProcess | None:
        """Return the idle process, where it lives and finds the modules that a new one would find."""
        held = self._empty()
        if held is None or held.owner != os.getpid():  # a fork of this Python must not use its parent's
            return None
        if held.path == _path() and held.idle():
            return held
        held.end()
        return None

    def put(self, server: ServerProcess) -> None:
        """Keep a process for the next command, or end it where it is not idle or another one is kept."""
        with self._lock:
            kept = self._held is None and server.idle()
            if kept:
                self._held = server
                self._timer = threading.Timer(LINGER, self.clear)
                self._timer.daemon = True
                self._timer.start()
        if not kept:
            server.end()

    def clear(self) -> None:
        """End the idle process."""
        held = self._empty()
        if held is not None and held.owner == os.getpid():
            held.end()

    def _empty(self) -> ServerProcess | None:
        with self._lock:
            held, self._held = self._held, None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return held


def _path() -> str:
    return os.pathsep.join(p for p in sys.path if p)


def _alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, 0)
        return True
    return False


SHELF = _Shelf()
atexit.register(SHELF.clear)
