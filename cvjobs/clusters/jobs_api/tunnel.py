"""The Jobs API of a cluster that only a program like ``ssh -L`` or ``kubectl port-forward`` reaches."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cvjobs.clusters.jobs_api.server import Server
from cvjobs.common.errors import JobFailed

LONGEST, ENDING = 20.0, 2.0


def free() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def through(argv: list[str], port: int, place: str) -> Iterator[Server]:
    """Yield the cluster behind a port that a program opens and closes; raises JobFailed with its last words."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, text=True, **streams) as process:  # type: ignore[call-overload]
        try:
            deadline = time.monotonic() + LONGEST
            while not _open(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    raise unusable(place, process.communicate()[1])
                time.sleep(0.1)
            yield Server(f"http://127.0.0.1:{port}")
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End a program, by force where it goes on: an ssh whose machine is stuck may not hear that it is asked to."""
    process.terminate()
    try:
        process.wait(ENDING)
    except subprocess.TimeoutExpired:
        process.kill()


def unusable(place: str, said: str) -> JobFailed:
    """Return the error for a place that cannot be reached, with the last line of what a program said about it."""
    lines = said.strip().splitlines() or ["no answer"]
    return JobFailed(f"{place} cannot be used ({lines[-1][:200].rstrip('.')}): correct that, then repeat the command.")


def _open(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False
