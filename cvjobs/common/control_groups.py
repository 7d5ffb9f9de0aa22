"""What the control groups of this process (Linux, version 1 and 2) allow: memory, processor time, and what was killed.

A limit holds for all groups below it, so each is looked for from the process's own group up to the highest that is
visible here; in a container that is the container's. ``root`` stands for ``/``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
_RECLAIMABLE = ("inactive_file", "active_file", "slab_reclaimable")
# The files of a group's limit and of what it uses, by version.
_MEMORY = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    2: ("memory.max", "memory.current"),
}


def memory_left(root: Path = ROOT) -> tuple[int, int] | None:
    """Return (limit, what is left of it) in bytes of the group that leaves the least; None without a limit.

    What files take in memory counts as left: the system takes it back.
    """
    found: list[tuple[int, int]] = []
    machine = _entries_of_machine(root).get("MemTotal", 1 << 60)  # version 1 has a number even for no limit
    for version, folder in _groups("memory", root):
        limit, used = (_number(folder / name) for name in _MEMORY[version])
        if limit is None or used is None or limit >= machine:
            continue
        statistics = _entries(folder / "memory.stat")
        files = sum(statistics.get(f"total_{name}", statistics.get(name, 0)) for name in _RECLAIMABLE)
        found.append((limit, max(limit - max(used - files, 0), 0)))
    return min(found, key=lambda one: one[1], default=None)


def swap_left(root: Path = ROOT) -> int:
    """Return how many bytes of swap are free for these groups; a process that has some is not killed at its limit."""
    free = _entries_of_machine(root).get("SwapFree", 0)
    for version, folder in _groups("memory", root):
        names = ("memory.swap.max", "memory.swap.current") if version == 2 else ("memory.memsw.limit_in_bytes",) * 2
        most, used = (_number(folder / name) for name in names)
        if version == 1 and most is not None:
            used = min(most, _number(folder / _MEMORY[1][0]) or 0)  # its limit is of memory and swap together
        if most is not None and used is not None:
            free = min(free, max(most - used, 0))
    return free


def cores(root: Path = ROOT) -> float | None:
    """Return how many cores' time these groups may use, None where none is limited."""
    found = []
    for version, folder in _groups("cpu", root):
        try:
            names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quota, period = " ".join((folder / name).read_text() for name in names).split()
            found.append(int(quota) / int(period))
        except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
            continue
    return min((count for count in found if count > 0), default=None)  # version 1 has -1 for no limit


def killed(root: Path = ROOT) -> int:
    """Return how many processes of this process's own group were killed for memory, as far as that is known."""
    for version, folder in _groups("memory", root):
        entries = _entries(folder / ("memory.events" if version == 2 else "memory.oom_control"))
        if "oom_kill" in entries:
            return entries["oom_kill"]
    return 0


def _groups(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    """Yield (version, folder) of each group that this process is in, its own first, and then those above."""
    own: dict[int, PurePosixPath] = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller in names.split(",") or (number, names) == ("0", ""):
            own[1 if names else 2] = PurePosixPath(path)
    for line in _lines(root / "proc/self/mountinfo"):
        place, _, kind = line.partition(" - ")
        (_, _, _, top, mounted), system = place.split()[:5], kind.split()
        version = 2 if system[0] == "cgroup2" else 1 if system[0] == "cgroup" else 0
        if version not in own or (version == 1 and controller not in system[-1].split(",")):
            continue
        try:
            below = own[version].relative_to(top)
        except ValueError:  # another namespace's name for it: what is mounted is what holds here
            below = PurePosixPath()
        if ".." in below.parts:
            below = PurePosixPath()
        folder = root / mounted.lstrip("/")
        yield from ((version, folder / path) for path in (below, *below.parents))


def _entries_of_machine(root: Path) -> dict[str, int]:
    """Return what the machine's memory is, in bytes by name."""
    words = (line.replace(":", " ").split() for line in _lines(root / "proc/meminfo"))
    return {word[0]: int(word[1]) << 10 for word in words if len(word) == 3}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _number(file: Path) -> int | None:
    """Return the number in a file, None where there is none: no such file, or "max"."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _entries(file: Path) -> dict[str, int]:
    pairs = (line.split() for line in _lines(file))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
