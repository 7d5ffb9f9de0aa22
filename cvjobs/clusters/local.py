"""A Ray head on this machine that outlives the command: started in a session of its own, found again by its mark.

Everything that descends from the head has the mark in its environment, so that it is found and ended whole; Ray's own
``ray stop`` would end every Ray of the user, those of other commands too.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

import cvjobs
from cvjobs import tokens
from cvjobs.clusters import Status
from cvjobs.errors import CvjobsError, JobFailed, WrongUse
from cvjobs.submission import stopping
from cvjobs.submission.server import Server, Unreachable
from cvjobs.submission.travel import LABEL

MARK = "CVJOBS_CLUSTER"
STARTING, ENDING, KILLED = 120.0, 20.0, 10.0


def up(name: str, file: dict[str, Any], say: Callable[[str], None]) -> Status:
    """Start the cluster and return when it takes jobs; nothing happens where it does already."""
    found = status(name, file)
    if found.up:
        return found
    if found.processes:
        say("ending what is left of an earlier one")
        _end(name)
    with suppress(OSError), socket.create_connection(("127.0.0.1", file["port"]), 5.0):
        raise WrongUse(f"Port {file['port']} of this machine is in use by something else: end that first.")
    tokens.ensure()
    folder = _folder(name)
    for old in folder.iterdir():  # the logs of a cluster stay until the next one
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    log = folder / "start.log"
    say("starting Ray")
    with log.open("w") as output:
        head = subprocess.Popen(
            [*_ray(), "start", "--head", "--block", *_options(file, folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(name, file),
            cwd=folder,
            start_new_session=True,
        )
    deadline = time.monotonic() + STARTING
    while not (found := status(name, file)).up:
        if head.poll() is not None or time.monotonic() > deadline:
            _end(name)
            raise JobFailed(f"Ray did not start on this machine: {log} says why.")
        time.sleep(0.5)
    head.returncode = 0  # it outlives whoever started it: Python must not wait for it
    return found


def down(name: str, file: dict[str, Any], say: Callable[[str], None]) -> Status:
    """Stop the jobs, end the cluster and return when every process of it is gone."""
    if status(name, file).up:
        with suppress(CvjobsError):  # a cluster that does not answer any more ends all the same
            stopping.stop_all(Server(_address(file)), say)
    say("ending Ray")
    _end(name)
    return status(name, file)


def status(name: str, file: dict[str, Any]) -> Status:
    """Return whether the cluster is there."""
    count, address = len(_processes(name)), _address(file)
    told = f"{name} is down"
    if count:
        told = f"{name} does not answer at {address} ({count} processes): 'cvjobs cluster down {name}' ends them"
    answers = False
    if count:
        with suppress(Unreachable):
            # The Jobs API is the last to be ready, and starts jobs from then on.
            Server(address).jobs()
            answers, told = True, f"{name} is up at {address} ({count} processes)"
    return Status(name=name, up=answers, address=address, processes=count, told=told)


def _address(file: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{file['port']}"


def _folder(name: str) -> Path:
    """Return where Ray keeps its sockets, whose paths must be short, and its logs, which nobody else may read."""
    folder = Path(f"/tmp/cvjobs-{os.getuid()}-{name}")  # noqa: S108 - its owner is checked
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise WrongUse(f"{folder} belongs to somebody else: have it removed.")
    folder.chmod(0o700)
    return folder


def _options(file: dict[str, Any], folder: Path) -> list[str]:
    # Ray lets everybody write to its folder, so it gets one inside.
    own = [f"--dashboard-port={file['port']}", f"--temp-dir={folder / 'ray'}", f"--labels={LABEL}={cvjobs.__version__}"]
    # Ray ends where its client port is in use, and takes none that is "any".
    with socket.create_server(("127.0.0.1", 0)) as free:
        own.append(f"--ray-client-server-port={free.getsockname()[1]}")
    return [*map(str, file.get("options", [])), *own]


def _environment(name: str, file: dict[str, Any]) -> dict[str, str]:
    here = str(Path(sys.executable).parent)  # jobs run `python`: this one
    inherited = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    path = os.pathsep.join([here, inherited.get("PATH", os.defpath)])
    return {**inherited, **{key: str(value) for key, value in file["environment"].items()}, MARK: name, "PATH": path}


def _ray() -> list[str]:
    found = shutil.which("ray", path=str(Path(sys.executable).parent)) or shutil.which("ray")
    if found is None:
        raise WrongUse("There is no program 'ray' beside this Python: install cvjobs into a virtual environment.")
    return [found]


def _processes(name: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            alive = process.status() != psutil.STATUS_ZOMBIE and process.uids().real == os.getuid()
            if alive and process.environ().get(MARK) == name and process.pid != os.getpid():
                found.append(process)
    return found


def _end(name: str) -> None:
    """End every process of the cluster, those that a dying one starts too."""
    found = _processes(name)
    pids = {process.pid for process in found}
    for process in found:
        with suppress(psutil.Error):
            if process.ppid() not in pids:  # the head, which ends the others itself
                process.terminate()
    if _gone(name, ENDING):
        return
    deadline = time.monotonic() + KILLED
    while left := _processes(name):
        if time.monotonic() > deadline:
            raise JobFailed(f"{len(left)} processes of {name} cannot be ended: see 'ps {left[0].pid}'.")
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.2)


def _gone(name: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _processes(name):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
