"""What this machine has to compute with; answers without importing torch where there is no GPU."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from pathlib import Path

import psutil

from cvjobs.common.formatting import size


def cpus() -> int:
    """Return how many cores this process may keep busy: its affinity and its control group's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        return count
    return max(count, 1)


# What limits a control group's memory, what it uses of it, and its statistics: version 2, then version 1.
_GROUPS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
_RECLAIMABLE = ("inactive_file", "active_file")


def memory() -> int:
    """Return how many bytes of memory this process may still take: what the machine has left, and its control group."""
    left = int(psutil.virtual_memory().available)
    for names in _GROUPS:
        try:
            limit, used, statistics = (Path("/sys/fs/cgroup", name).read_text() for name in names)
            entries = dict(line.split() for line in statistics.splitlines())
            files = sum(int(entries.get(f"total_{name}", entries.get(name, 0))) for name in _RECLAIMABLE)
            left = min(left, int(limit) - int(used) + files)  # the limit is "max" where there is none
        except (OSError, ValueError):
            continue
    return max(left, 0)


def gpus() -> int:
    """Return how many CUDA GPUs torch can use here."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return 0
    import torch

    return torch.cuda.device_count()


def machine(device: str) -> str:
    """Return the machine's name, processor, cores, memory and, where the run used one, GPU."""
    words = [platform.node(), f"{cpus()} cores of {_processor()}", size(psutil.virtual_memory().total)]
    if device != "cpu":
        torch = sys.modules.get("torch")
        words.append(torch.cuda.get_device_name(0) if torch and torch.cuda.is_available() else device)
    return ", ".join(word for word in words if word)


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()
