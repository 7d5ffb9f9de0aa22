"""Puts a command on a cluster as a job, or finds the one that has its id; then follows it."""

from __future__ import annotations

import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cvjobs.clusters.jobs_api import code, follow, runtime
from cvjobs.clusters.jobs_api.server import Server, Unreachable
from cvjobs.common.errors import JobFailed, Stopped, WrongUse
from cvjobs.common.progress import tell
from cvjobs.config import argv
from cvjobs.config.options import SubmitOptions

STOP_SECONDS = 20  # between a request to stop and the kill: what is done is published in that time
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def send(command: str, config: Any, wish: SubmitOptions) -> int:
    """Run a command on the cluster at ``config.address`` and return its exit code; 0 at once with ``detach``.

    A job of that id is followed, not sent again: the same command line may be sent twice. Raises WrongUse where the id
    belongs to another command, and JobFailed where the cluster loses the job.
    """
    name = wish.id or f"{command}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    if not _ID.fullmatch(name):
        raise WrongUse("--id is no id for a job: give letters, digits, '.', '_' and '-', as in --id night-2026-11-22.")
    server = Server(config.address)
    line = argv.entrypoint(argv.sent(command, config))
    server.greet()
    marker = None
    new = server.job(name) is None
    if new:
        environment = code.runtime_env(server)
        marker = runtime.mark(name, getattr(config, "out", None))
        # Ray's own limit is 3 s, and it is read where the job runs.
        variables = {runtime.JOB: name, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
        if marker:
            variables[runtime.MARKER] = str(marker)
        try:
            new = server.submit(name, line, {**environment, "env_vars": variables})
        except Unreachable:
            with suppress(Unreachable):  # an answer that was lost says nothing of the job
                if server.job(name) is None:
                    _remove(marker)
            raise
    job = server.job(name)
    if job is None:
        _remove(marker)
        raise JobFailed(f"The cluster at {server.address} lost job {name}: run the same command again.")
    if not argv.same(job.entrypoint, line):
        _remove(marker)
        raise WrongUse(f"The id {name} belongs to another command ({job.command}): choose another --id.")
    state = "" if new else f" is there already ({job.status.lower()})"
    tell(f"job {name}{state}")
    if wish.detach:
        tell(f"{follow.attach_line(server, name)}")
        return 0
    try:
        return follow.follow(server, name, together=runtime.NIGHT in os.environ)
    except (Stopped, Unreachable):
        marker = None  # the job may still begin, and removes it then
        raise
    finally:
        _remove(marker)


def _remove(marker: Path | None) -> None:
    if marker:
        with suppress(OSError):
            os.unlink(marker)
