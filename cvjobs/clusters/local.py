"""A Ray head on this machine that outlives the command: started in a session of its own, found again by its mark.

Its processes are those with the cluster's mark (see ``host``).
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

import cvjobs
from cvjobs.clusters import auth_token, host
from cvjobs.clusters.files import Status, part
from cvjobs.clusters.jobs_api import stop
from cvjobs.clusters.jobs_api.code import LABEL
from cvjobs.clusters.jobs_api.server import Server, Unreachable
from cvjobs.clusters.ray_compat import ALONE, NO_METRICS
from cvjobs.common.errors import CvjobsError, JobFailed, WrongUse

STARTING = 120.0


def up(name: str, file: dict[str, Any], say: Callable[[str], None]) -> Status:
    """Start the cluster and return when it takes jobs; nothing happens where it does already."""
    found = status(name, file)
    if found.up:
        return found
    if found.processes:
        say("ending what is left of an earlier one")
        host.end(name)
    port = _port(file)
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5.0):
        raise WrongUse(f"Port {port} of this machine is in use by something else: end that first.")
    auth_token.ensure(lasting=True)
    folder = host.clear(name)
    log = folder / "start.log"
    say("starting Ray")
    with log.open("w") as output:
        head = subprocess.Popen(
            [*ray(), "start", "--head", "--block", *_options(file, folder)],
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
            host.end(name)
            raise JobFailed(f"Ray did not start on this machine: {log} says why.")
        time.sleep(0.5)
    head.returncode = 0  # it outlives this process: Python must not wait for it
    return found


def down(name: str, file: dict[str, Any], say: Callable[[str], None]) -> Status:
    """Stop the jobs, end the cluster and return when every process of it is gone."""
    if status(name, file).up:
        with suppress(CvjobsError):  # a cluster that does not answer any more ends all the same
            stop.stop_all(Server(_address(file)), say)
    say("ending Ray")
    host.end(name)
    return status(name, file)


def status(name: str, file: dict[str, Any]) -> Status:
    """Return whether the cluster is there."""
    count, address = len(host.processes(name)), _address(file)
    told = f"{name} is down"
    if count:
        told = f"{name} does not answer at {address} ({count} processes): 'cvjobs cluster down {name}' ends them"
    answers = False
    if count:
        with suppress(Unreachable):
            # The Jobs API is the last to be ready, and starts jobs from then on.
            Server(address).jobs()
            answers, told = True, f"{name} is up at {address} ({count} processes)"
    return Status(name=name, up=answers, address=address, processes=count, machines=int(answers), told=told)


def _address(file: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{_port(file)}"


def _port(file: dict[str, Any]) -> int:
    port = file.get("port")
    if not isinstance(port, int) or not 0 < port < 1 << 16:
        raise WrongUse("The cluster's file names no 'port' from 1 to 65535: add it, as the shipped one does.")
    return port


def _options(file: dict[str, Any], folder: Path) -> list[str]:
    # Ray lets all users write to its folder, so it gets one inside.
    own = [f"--dashboard-port={_port(file)}", f"--temp-dir={folder / 'ray'}", f"--labels={LABEL}={cvjobs.__version__}"]
    # Ray ends where its client port is in use, and takes none that is "any".
    with socket.create_server(("127.0.0.1", 0)) as free:
        own.append(f"--ray-client-server-port={free.getsockname()[1]}")
    return [*map(str, file.get("options", [])), *own]


def _environment(name: str, file: dict[str, Any]) -> dict[str, str]:
    here = str(Path(sys.executable).parent)  # jobs run `python`: this one
    inherited = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    path = os.pathsep.join([here, inherited.get("PATH", os.defpath)])
    wanted = {key: str(value) for key, value in part(file, "environment").items()}
    return {**NO_METRICS, **inherited, **wanted, **ALONE, host.MARK: name, "PATH": path}


def ray() -> list[str]:
    """Return the command `ray` that belongs to this Python; raises WrongUse where there is none."""
    found = shutil.which("ray", path=str(Path(sys.executable).parent)) or shutil.which("ray")
    if found is None:
        raise WrongUse("There is no program 'ray' beside this Python: install cvjobs into a virtual environment.")
    return [found]
