"""What a run ran on, in words."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

import psutil

from cvjobs import devices
from cvjobs.pages.words import size


def machine(device: str) -> str:
    """Return the machine's name, processor, cores, memory and, where the run used one, GPU."""
    words = [platform.node(), f"{devices.cpus()} cores of {_processor()}", size(psutil.virtual_memory().total)]
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
