"""What this machine has to compute with; answers without importing torch where there is no GPU."""

from __future__ import annotations

import importlib.util
import math
import os
import platform
import re
import sys
from pathlib import Path

import psutil

from cvjobs.common import control_groups
from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import size

# Bytes that torch's libraries take of a process's own memory, as measured: made for CUDA, and for the CPU alone.
_TORCH = {True: 390_000_000, False: 150_000_000}
RAISE = "raise the limit, 2 GB suffice for most models"
MOST_THREADS = 4096  # a slip of the finger is above it
SIMULATED = "CVJOBS_SIMULATED_GPUS"  # for tests: this machine has so many GPUs, and what runs on them runs on its CPU
_VISION = 150_000_000  # what models need beside torch until they are loaded: torchvision above all


def cpus(root: Path = control_groups.ROOT) -> int:
    """Return how many cores this process may keep busy: its affinity and its control groups' quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = control_groups.cores(root)
    return max(count if quota is None else min(count, math.ceil(quota)), 1)


def threads() -> int:
    """Return how many threads a model trains with: what OMP_NUM_THREADS says, else as many as there are cores."""
    return told_threads() or cpus()


def told_threads() -> int | None:
    """Return the number of threads in OMP_NUM_THREADS, None where it is none.

    Of several numbers, one for each level of parallel work, the first counts, as it does for OpenMP.
    """
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    number = int(told) if re.fullmatch(r"[0-9]{1,6}", told) else 0
    return number if 1 <= number <= MOST_THREADS else None


def memory(root: Path = control_groups.ROOT) -> int:
    """Return how many bytes of memory this process may still take: what the machine and its control groups leave."""
    left = int(psutil.virtual_memory().available)
    held = control_groups.memory_left(root)
    return left if held is None else min(left, held[1])


def libraries(*, model: bool) -> int:
    """Return about how many bytes torch takes where it is still to be imported; with ``model`` a process of models."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return 0
    return _TORCH[(Path(found.origin).parent / "lib/libtorch_cuda.so").exists()] + _VISION * model


def check_memory(need: int, what: str, remedy: str = RAISE, root: Path = control_groups.ROOT) -> None:
    """Raise WrongUse where something needs more bytes than a control group still allows; without one nothing is said.

    The system ends a process that goes over such a limit, and it has no time to say why.
    """
    held = control_groups.memory_left(root)
    if held is None or need <= held[1] + control_groups.swap_left(root):
        return
    limit, left = held
    raise WrongUse(
        f"{what} needs about {size(need)} of memory, and the limit of {size(limit)} that is set for this process "
        f"(its control group) leaves {size(left)}: {remedy}."
    )


def gpus() -> int:
    """Return how many CUDA GPUs torch can use here."""
    if simulated():
        return simulated()
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return 0
    import torch

    return torch.cuda.device_count()


def simulated() -> int:
    """Return how many GPUs a test has this machine pretend to have; 0 outside tests."""
    told = os.environ.get(SIMULATED, "")
    return int(told) if re.fullmatch(r"[0-9]{1,3}", told) else 0


def torch_name(device: str) -> str:
    """Return the device as this process's torch knows it: what a test calls a GPU is the CPU."""
    return "cpu" if simulated() else device


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
