"""Machines that Ray's cluster launcher starts over SSH: a list of hosts, or instances of a cloud that come and go.

``launcher`` in the file is Ray's own schema; what is the same everywhere is added here: the token, this cvjobs as a
wheel, and the commands that start Ray. Ray's launcher checks no host keys, so it is given an ``ssh`` that does.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

import cvjobs
from cvjobs.clusters import auth_token, host, local
from cvjobs.clusters.files import Status, part
from cvjobs.clusters.jobs_api import stop, wheel
from cvjobs.clusters.jobs_api.code import LABEL
from cvjobs.clusters.jobs_api.server import Server, Unreachable
from cvjobs.clusters.jobs_api.tunnel import free, through, unusable
from cvjobs.clusters.ray_compat import NO_METRICS
from cvjobs.common.errors import CvjobsError, JobFailed, WrongUse

PORT = 8265  # of the Jobs API and the dashboard, on the head's 127.0.0.1
SETUP = "~/.cvjobs/setup"
OURS = {"cluster_name", "file_mounts", "head_start_ray_commands", "worker_start_ray_commands"}
_MACHINE = re.compile(r"[\w.:][\w.:-]*")
CONNECTING, STARTING, ENDING = 10, 120.0, 180.0


def up(name: str, file: dict[str, Any], say: Callable[[str], None]) -> Status:
    """Start the cluster and return when it takes jobs; nothing happens where it does already."""
    say("asking whether it is up")
    found = status(name, file)
    if found.up:
        return found
    _program("rsync")
    auth_token.ensure(lasting=True)
    say("setting up the head: minutes where it has to install PyTorch")
    _launched(name, file, "up", "--disable-usage-stats", "--no-config-cache")
    deadline = time.monotonic() + STARTING
    while not (found := status(name, file)).up or found.machines < _wanted(file):
        if time.monotonic() > deadline:
            break
        say(f"{found.machines} of {_wanted(file)} machines")
        time.sleep(2.0)
    if not found.up:
        raise JobFailed(f"Ray's launcher ended well, but {found.told}: see {host.folder(name) / 'launcher.log'}.")
    return found


def down(name: str, file: dict[str, Any], say: Callable[[str], None]) -> Status:
    """Stop the jobs and end the cluster; machines of a cloud are given back."""
    head = _head(name, file)
    if head:
        with suppress(CvjobsError), tunnel(name, file, head) as server:
            stop.stop_all(server, say)
    if not _listed(file):
        say("giving the machines back")
        _launched(name, file, "down")
        _known_hosts(name).unlink(missing_ok=True)
        return status(name, file)
    first, *others = _machines(file)  # the head first: it would start the others anew
    say(f"ending Ray on {first}")
    _end(name, file, first)
    say(f"ending Ray on {len(others)} others")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda machine: _end(name, file, machine), others))
    return status(name, file)


def status(name: str, file: dict[str, Any]) -> Status:
    """Return whether the head takes jobs, and on how many machines."""
    address, head = f"http://127.0.0.1:{PORT}", _head(name, file)
    machines, told = 0, f"{name} is down"
    if head:
        with suppress(Unreachable), tunnel(name, file, head) as server:
            server.jobs()
            machines = len(server.labels())
            login = [*_key(file), _login(file, head)]
            line = shlex.join(["ssh", "-N", "-L", f"{PORT}:127.0.0.1:{PORT}", *login])
            many = f"{machines} of {_wanted(file)} machines" if _listed(file) else f"{machines} machines"
            told = f"{name} is up with {many}: run '{line}', then use --address {address}"
    return Status(name=name, up=machines > 0, address=address, machines=machines, told=told)


@contextmanager
def tunnel(name: str, file: dict[str, Any], head: str) -> Iterator[Server]:
    """Reach the Jobs API of the head through SSH; raises JobFailed where SSH fails."""
    port = free()
    argv = _ssh(name, file, head, "-N", "-o", "ExitOnForwardFailure=yes", "-L", f"{port}:127.0.0.1:{PORT}")
    with through(argv, port, f"{head} over SSH") as server:
        yield server


def document(name: str, file: dict[str, Any], cargo: Path) -> dict[str, Any]:
    """Return the file for Ray's launcher; ``cargo`` is the folder that every machine gets."""
    given = part(file, "launcher")
    if taken := OURS & given.keys():
        raise WrongUse(f"'{min(taken)}' under 'launcher' is written by cvjobs: take it out of the cluster's file.")
    head = [
        "--head",
        "--port=6379",
        "--autoscaling-config=~/ray_bootstrap_config.yaml",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={PORT}",
        "--disable-usage-stats",
    ]
    return {
        **given,
        "cluster_name": name,
        "file_mounts": {SETUP: str(cargo)},
        "head_start_ray_commands": [_start(name, file, *head)],
        "worker_start_ray_commands": [_start(name, file, "--address=$RAY_HEAD_IP:6379")],
    }


def _start(name: str, file: dict[str, Any], *options: str) -> str:
    """Return the shell's line that starts Ray on a machine, after what an earlier start has left is ended."""
    wanted = {**NO_METRICS, **part(file, "environment")}
    exports = {key: shlex.quote(str(value)) for key, value in wanted.items()}
    exports |= {
        "RAY_AUTH_TOKEN_PATH": '"$HOME/.cvjobs/setup/auth_token"',
        "RAY_TMPDIR": f"/tmp/cvjobs-$(id -u)-{name}",  # noqa: S108 - host.py checks its owner
        host.MARK: name,
    }
    return "; ".join(
        [
            'export PATH="$HOME/.cvjobs/env/bin:$PATH"',
            "unset OMP_NUM_THREADS PYTHONWARNINGS",  # Ray's launcher sets them
            f"python -m cvjobs.clusters.host {name} || exit 1",
            "ulimit -n 65536 2>/dev/null",
            *(f"export {key}={value}" for key, value in exports.items()),
            f'ray start --temp-dir="$RAY_TMPDIR/ray" --labels={LABEL}={cvjobs.__version__} {" ".join(options)}',
        ]
    )


def _launch(name: str, file: dict[str, Any], action: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Ray's launcher, with a file and a state of its own that only its owner may read."""
    with tempfile.TemporaryDirectory(prefix="cvjobs-") as made:
        folder = Path(made)
        plain, programs = folder / "cluster.yaml", folder / "bin"
        plain.write_text(yaml.safe_dump(document(name, file, _cargo(folder)), sort_keys=False))
        programs.mkdir()
        checking = programs / "ssh"
        checking.write_text(f'#!/bin/sh\nexec {shlex.join([_program("ssh"), *_checks(name, file)])} "$@"\n')
        checking.chmod(0o700)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)])
        own = {
            "PATH": path,
            "TMPDIR": made,
            "RAY_TMPDIR": made,
            "RAY_UP_enable_autoscaler_v2": str(int(not _listed(file))),
        }
        ended = subprocess.run(
            [*local.ray(), action, *options, str(plain)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**inherited, **own},
            check=False,
        )
    (host.folder(name) / "launcher.log").write_text(ended.stdout + ended.stderr)
    return ended


def _launched(name: str, file: dict[str, Any], action: str, *options: str) -> None:
    ended = _launch(name, file, action, "--yes", *options)
    if ended.returncode:
        log = host.folder(name) / "launcher.log"
        raise JobFailed(f"Ray's launcher failed (ray {action}, exit code {ended.returncode}): {log} says why.")


def _cargo(folder: Path) -> Path:
    """Put what every machine gets into a folder: the token, cvjobs as a wheel, the versions of what it needs."""
    cargo = folder / "setup"
    cargo.mkdir(mode=0o700)
    with open(os.open(cargo / "auth_token", os.O_WRONLY | os.O_CREAT, 0o600), "w") as token:
        token.write(auth_token.read())
    filename, content = wheel.build()
    (cargo / filename).write_bytes(content)
    (cargo / "constraints.txt").write_text(wheel.constraints())
    return cargo


def _end(name: str, file: dict[str, Any], machine: str) -> None:
    """End what a cluster has on a machine, and take away what was put there for it, all but the environment."""
    line = (
        f"{{ test ! -x ~/.cvjobs/env/bin/python || ~/.cvjobs/env/bin/python -m cvjobs.clusters.host {name}; }} && "
        f"rm -rf {SETUP} ~/ray_bootstrap_key.pem ~/ray_bootstrap_config.yaml"
    )
    argv = _ssh(name, file, machine, line)
    try:
        ended = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ENDING, check=False
        )
    except subprocess.TimeoutExpired:
        raise JobFailed(
            f"{machine} has not ended Ray in {ENDING:.0f} s: look there, then repeat the command."
        ) from None
    if ended.returncode:
        raise unusable(f"{machine} over SSH", ended.stderr)


def _ssh(name: str, file: dict[str, Any], machine: str, *words: str) -> list[str]:
    """Return the command line that logs in; ``words`` may be options, or at their end a line for the shell there."""
    options, line = (words, []) if words[0].startswith("-") else ((), list(words))
    asks = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECTING}"]
    return [_program("ssh"), *_checks(name, file), *asks, *_key(file), *options, _login(file, machine), *line]


def _key(file: dict[str, Any]) -> list[str]:
    key = part(file, "launcher", "auth").get("ssh_private_key")
    return ["-i", str(Path(key).expanduser())] if key else []


def _login(file: dict[str, Any], machine: str) -> str:
    user = part(file, "launcher", "auth").get("ssh_user")
    if not isinstance(user, str) or not _MACHINE.fullmatch(user):
        raise WrongUse("The cluster's file does not say who logs in: give 'auth' an ssh_user.")
    return f"{user}@{machine}"


def _checks(name: str, file: dict[str, Any]) -> list[str]:
    """Return the options that make SSH remember the host keys of a cluster, and refuse one that has changed."""
    known = _known_hosts(name)
    known.parent.mkdir(mode=0o700, exist_ok=True)
    files = [known, Path.home() / ".ssh" / "known_hosts"] if _listed(file) else [known]
    both = " ".join(f'"{place}"' for place in files)
    return ["-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={both}"]


def _known_hosts(name: str) -> Path:
    return Path.home() / ".cvjobs" / f"{name}.known_hosts"


def _listed(file: dict[str, Any]) -> bool:
    return part(file, "launcher", "provider").get("type") == "local"


def _machines(file: dict[str, Any]) -> list[str]:
    """Return the machines of a list of hosts, the head first, as they are reached from here."""
    provider = part(file, "launcher", "provider")
    head, others = provider.get("external_head_ip", provider.get("head_ip")), provider.get("worker_ips", [])
    found = [head, *others] if isinstance(others, list) else []
    named = all(isinstance(machine, str) and _MACHINE.fullmatch(machine) for machine in found)
    if not found or not named or len(set(found)) < len(found):
        raise WrongUse("The cluster's file names no machine, or one twice: give 'provider' a head_ip and worker_ips.")
    return found


def _wanted(file: dict[str, Any]) -> int:
    return len(_machines(file)) if _listed(file) else 1


def _head(name: str, file: dict[str, Any]) -> str:
    """Return where the head is, "" where a cloud has none."""
    if _listed(file):
        return _machines(file)[0]
    if part(file, "launcher", "provider").get("type") == "aws" and importlib.util.find_spec("boto3") is None:
        raise WrongUse("Amazon's machines need boto3, which is not installed: run 'pip install boto3'.")
    asked = _launch(name, file, "get-head-ip")
    if asked.returncode and "Head node of cluster" not in asked.stdout + asked.stderr:  # ... not found
        raise JobFailed(f"The cloud does not say where the head is: {host.folder(name) / 'launcher.log'} says why.")
    return "" if asked.returncode else asked.stdout.strip().splitlines()[-1]


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise WrongUse(f"There is no program '{name}' on this machine: install it.")
    return found
