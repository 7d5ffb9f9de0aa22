"""What the system says of a process in a control group, written into a folder that stands for ``/``."""

from __future__ import annotations

from pathlib import Path


def limited(root: Path, limit: int, used: int) -> Path:
    """Return a folder that stands for ``/``, with the files of a control group of version 2."""
    files: dict[str, object] = {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n",
        "proc/meminfo": "MemTotal: 24000000 kB\nSwapFree: 100000 kB\n",
        "sys/fs/cgroup/memory.max": limit,
        "sys/fs/cgroup/memory.current": used,
        "sys/fs/cgroup/memory.swap.max": 0,
        "sys/fs/cgroup/memory.swap.current": 0,
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(content))
    return root
