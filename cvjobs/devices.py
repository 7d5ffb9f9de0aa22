"""What this machine has to compute with; answers without importing torch where there is no GPU."""

from __future__ import annotations

import math
import os
from pathlib import Path


def cpus() -> int:
    """Return how many cores this process may keep busy: its affinity and its control group's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        return count
    return max(count, 1)


def gpus() -> int:
    """Return how many CUDA GPUs torch can use here."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return 0
    import torch

    return torch.cuda.device_count()
