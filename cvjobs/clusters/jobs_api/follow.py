"""Follows a job to its end: its log line by line, none lost or twice, and its own exit code.

The log is read as a whole again and again, and what was shown is left out: Ray's own stream of it stops without a word
when a connection is lost, and cannot be continued from where it was.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time

from cvjobs.clusters.jobs_api.runtime import STDOUT
from cvjobs.clusters.jobs_api.server import ClusterJob, Server, Unreachable
from cvjobs.common.errors import JobFailed, Stopped, WrongUse
from cvjobs.common.formatting import visible_lines
from cvjobs.common.signals import stoppable

PATIENCE = 60.0  # seconds that a cluster may be silent: its dashboard starts again in less
SHARE, LONGEST = 20, 10.0  # one part in 20 of the time, at most, goes to reading the log; seconds between two looks
_LINE = re.compile(r"[^\n]*\n|[^\n]+")  # str.splitlines would also split at the mark of stdout
_SETUP = re.compile(r"\A\S+ \S+\tINFO job_manager\.py:\d+ -- Runtime env is setting up\.\n")


def follow(server: Server, name: str, together: bool = False) -> int:
    """Show a job's log until it ends and return its exit code.

    Ctrl-C leaves the job alone and raises Stopped; with ``together`` it stops the job, whose last lines are shown.
    Raises JobFailed for a job that was killed, and Unreachable where the cluster is silent for a minute.
    """
    log = Log()
    try:
        with stoppable():  # SIGTERM does what Ctrl-C does
            job = _watch(server, name, log)
    except KeyboardInterrupt:
        if not together:
            raise Stopped(f"Job {name} goes on: {attach_line(server, name)}.") from None
        server.stop(name)
        job = _watch(server, name, log)
    if job.status == "FAILED" and job.returned != job.exit_code:
        raise JobFailed(f"Job {name} {_death(job)}: the same command with another --id continues.")
    assert job.exit_code is not None
    return job.exit_code


def attach_line(server: Server, name: str) -> str:
    """Return how to follow and how to stop a job, in words."""
    at = "" if os.environ.get("RAY_ADDRESS") == server.address else f" --address {server.address}"
    return f"follow it with 'cvjobs jobs wait {name}{at}', stop it with 'cvjobs jobs stop {name}{at}'"


def known(server: Server, name: str) -> ClusterJob:
    """Return a job; raises WrongUse where the cluster has none of that id."""
    job = server.job(name)
    if job is None:
        raise WrongUse(f"The cluster at {server.address} knows no job {name}: 'cvjobs jobs list' shows those it does.")
    return job


def show(server: Server, name: str) -> None:
    """Show what a job has written so far."""
    job = known(server, name)
    Log().show(server.log(name), job)


class Log:
    """A job's log as it grows; ``show`` writes what it has not written yet."""

    def __init__(self) -> None:
        self._shown = 0

    def show(self, log: str, job: ClusterJob) -> None:
        """Write the new whole lines, and of an ended job the rest, to the streams that the job wrote them to."""
        text = _SETUP.sub("", log, count=1)
        # Ray's own line about the start comes when its buffer is flushed: before, or in between the job's.
        text = text.replace(f"Running entrypoint for job {job.id}: {job.entrypoint}\n", "", 1)
        end = len(text) if job.over else text.rfind("\n") + 1
        for line in _LINE.findall(text[self._shown : end]):
            stream = sys.stdout if line.startswith(STDOUT) else sys.stderr
            stream.write(visible_lines(line.removeprefix(STDOUT)))
        sys.stdout.flush()
        sys.stderr.flush()
        self._shown = max(end, self._shown)


def _watch(server: Server, name: str, log: Log) -> ClusterJob:
    answered = time.monotonic()
    while True:
        began, took = time.monotonic(), 0.0
        try:
            # The status first: a log that is read after the end is whole.
            job = server.job(name)
            if job is None:
                raise JobFailed(
                    f"The cluster at {server.address} was started anew and does not know job {name} any more: "
                    "the same command continues what it began."
                )
            log.show(server.log(name), job)
        except Unreachable as error:
            if time.monotonic() - answered > PATIENCE:
                raise Unreachable(
                    f"The cluster at {server.address} has not answered for {PATIENCE:.0f} s: "
                    f"when it does, {attach_line(server, name)}; on a new one, the same command continues."
                ) from error
        else:
            answered = time.monotonic()
            took = answered - began
            if job.over:
                return job
        # A long log takes long to read: then it is read less often.
        time.sleep(min(max(1.0, SHARE * took), LONGEST))


def _death(job: ClusterJob) -> str:
    if job.returned is not None and job.returned < 0:
        number = -job.returned
        known_signals = {one.value: one.name for one in signal.Signals}
        return f"was killed by {known_signals.get(number, f'signal {number}')}" + " (out of memory?)" * (number == 9)
    lines = job.message.strip().splitlines()
    return f"ended without an exit code ({lines[-1][:200] if lines else 'for no reason that Ray gives'})"
