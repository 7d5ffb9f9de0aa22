"""What a process that decodes bytes of strangers may take, and that it ends with the one that started it."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import signal
import sys
from pathlib import Path

_DIE_WITH_PARENT = 1


def limit() -> None:
    """End with the thread that started this process, leave no core dump, and be the first to go.

    Where memory runs out, the system ends such a process, which costs nothing, and not the command.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_memory(room: int) -> None:
    """Let this process take so many bytes of address space more than it has."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        room += pages * resource.getpagesize()
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        room = room if most == resource.RLIM_INFINITY else min(room, most)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
