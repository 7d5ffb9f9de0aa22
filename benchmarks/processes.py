"""Runs a command as its own process tree and measures it: wall time, CPU time and memory of the whole tree.

The tree is sampled because no parent reaps the decode processes: ``getrusage`` never sees their time.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import psutil

BENCHMARKS = Path(__file__).parent
CVJOBS = (sys.executable, "-m", "cvjobs")
EVERY = 0.2
CORES = 2
# All sides run under these. Ray's keep it from metrics ports and from calling home, and let in this run alone.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "RAY_enable_metrics_collection": "0",
    "RAY_DISABLE_METRICS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}


@dataclass
class Finished:
    """What a command took: wall seconds, CPU seconds of its tree, its JSON answer, and peaks in MiB.

    ``pss`` is the proportional set size summed over the tree, ``largest`` the RSS of the largest process; both are 0
    unless memory was asked for. CPU time is sampled five times a second, so up to 0.2 s a process are missing; of it
    ``own`` is the command's own process.
    """

    seconds: float
    cpu: float
    own: float
    answer: dict[str, Any]
    pss: float
    largest: float


@dataclass
class _Tree:
    """A process and all its descendants, those included that outlive their parents."""

    root: psutil.Process
    memory: bool
    known: dict[psutil.Process, float] = field(default_factory=dict)
    pss: float = 0.0
    largest: float = 0.0

    def sample(self) -> None:
        """Look once at every process."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in [self.root, *self.root.children(recursive=True)]:
                self.known.setdefault(process, 0.0)
        pss = 0.0
        for process in list(self.known):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                times = process.cpu_times()
                self.known[process] = times.user + times.system
                if self.memory:
                    used = process.memory_full_info()
                    pss += used.pss / 2**20
                    self.largest = max(self.largest, used.rss / 2**20)
        self.pss = max(self.pss, pss)

    def kill(self) -> None:
        """End every process."""
        self.sample()
        for process in self.known:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    @property
    def cpu(self) -> float:
        """CPU seconds of all processes so far."""
        return sum(self.known.values())


def two_cores() -> None:
    """Keep this process, and all that it starts, on the first two cores that it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def start(
    *command: str | Path,
    stdout: int | IO[str] = subprocess.DEVNULL,
    stderr: int | IO[str] = subprocess.DEVNULL,
    environment: Mapping[str, str] = MappingProxyType(ENVIRONMENT),
) -> subprocess.Popen[str]:
    """Start a command in a session of its own, so that its whole group can be killed."""
    words = [str(word) for word in command]
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, **environment},
        start_new_session=True,
        text=True,
    )


def run(
    *command: str | Path,
    memory: bool = False,
    environment: Mapping[str, str] = MappingProxyType(ENVIRONMENT),
    seconds: float | None = None,
) -> Finished:
    """Run a command that answers with one JSON object, to its end, or for so many seconds.

    Raises:
        RuntimeError: It fails.
        TimeoutError: It took longer, and was killed with all that it had started.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        process = start(*command, stdout=out, stderr=err, environment=environment)
        tree = _Tree(psutil.Process(process.pid), memory)
        ended = threading.Event()
        sampler = threading.Thread(target=_sample, args=(tree, ended))
        sampler.start()
        code: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(seconds)
        took = time.perf_counter() - began
        ended.set()
        sampler.join()
        if code is None:
            tree.kill()
            process.wait()
            raise TimeoutError(f"{' '.join(map(str, command))} took longer than {took:.0f} s")
        out.seek(0)
        err.seek(0)
        lines = out.read().splitlines()
        if code or not lines:
            raise RuntimeError(f"{' '.join(map(str, command))} ended with {code}: {err.read()[-2000:]}")
    return Finished(took, tree.cpu, tree.known.get(tree.root, 0.0), json.loads(lines[-1]), tree.pss, tree.largest)


def _sample(tree: _Tree, ended: threading.Event) -> None:
    while not ended.wait(EVERY):
        tree.sample()


def job(command: str, source: str | Path, out: Path, *options: str | Path, memory: bool = False) -> Finished:
    """Run a batch job of cvjobs with ``--json``."""
    return run(*CVJOBS, command, source, "-o", out, "--json", *options, memory=memory)


def embed(source: str | Path, out: Path, *options: str, memory: bool = False) -> Finished:
    """Run ``cvjobs embed`` with ``--json``."""
    return job("embed", source, out, *options, memory=memory)


def train(source: Path, out: Path, *options: str | Path) -> Finished:
    """Run ``cvjobs train`` with ``--json``, in as many threads as there are cores."""
    return run(*threads(), *CVJOBS, "train", source, "-o", out, "--json", *options)


def threads() -> tuple[str, str]:
    """Return what comes before a command that computes in as many threads as there are cores."""
    return ("env", f"OMP_NUM_THREADS={CORES}")


def script(name: str, *options: str | Path) -> Finished:
    """Run a program of this folder that prints JSON."""
    return run(sys.executable, BENCHMARKS / name, *options)
