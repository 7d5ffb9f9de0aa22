"""What a cluster has on one machine: its folder, and its processes, found by their mark and ended whole.

Everything that descends from a cluster's Ray has the mark in its environment. Ray's own ``ray stop`` would end every
Ray of the machine. ``python -m cvjobs.clusters.host NAME`` ends and clears what is left of a cluster, for use over SSH.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from cvjobs.common.errors import CvjobsError, JobFailed, WrongUse

MARK = "CVJOBS_CLUSTER"
ENDING, KILLED = 20.0, 10.0


def folder(name: str) -> Path:
    """Return where Ray keeps its sockets, whose paths must be short, and its logs, which only their owner may read."""
    place = _place(name)
    place.mkdir(mode=0o700, exist_ok=True)
    if place.is_symlink() or place.stat().st_uid != os.getuid():
        raise WrongUse(f"{place} belongs to another user: have it removed.")
    place.chmod(0o700)
    return place


def clear(name: str) -> Path:
    """Empty the folder and return it: the logs of a cluster stay until the next one."""
    place = folder(name)
    for old in place.iterdir():
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    return place


def processes(name: str) -> list[psutil.Process]:
    """Return the processes of a cluster on this machine."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.uids().real == os.getuid() and process.pid != os.getpid() and _belongs(process, name):
                found.append(process)
    return found


def _belongs(process: psutil.Process, name: str) -> bool:
    if process.status() == psutil.STATUS_ZOMBIE:
        return False
    if (mark := process.environ().get(MARK)) or not process.name().startswith("ray::"):
        return mark == name
    # Ray's own processes write their title over their environment; their logs are in the cluster's folder.
    return any(file.path.startswith(f"{_place(name)}/") for file in process.open_files())


def end(name: str) -> None:
    """End every process of the cluster, those that a dying one starts too."""
    found = processes(name)
    pids = {process.pid for process in found}
    for process in found:
        with suppress(psutil.Error):
            if process.ppid() not in pids:  # the head, which ends the others itself
                process.terminate()
    if _gone(name, ENDING):
        return
    deadline = time.monotonic() + KILLED
    while left := processes(name):
        if time.monotonic() > deadline:
            raise JobFailed(f"{len(left)} processes of {name} cannot be ended: see 'ps {left[0].pid}'.")
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.2)


def _gone(name: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while processes(name):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _place(name: str) -> Path:
    return Path(f"/tmp/cvjobs-{os.getuid()}-{name}")  # noqa: S108 - its owner is checked


if __name__ == "__main__":
    try:
        end(sys.argv[1])
        clear(sys.argv[1])
    except CvjobsError as error:
        sys.exit(f"cvjobs: {error}")
