"""Stops jobs: first asked to, so that they publish what they have, killed by Ray after 20 s."""

from __future__ import annotations

import time
from collections.abc import Callable

from cvjobs.clusters.jobs_api.follow import known
from cvjobs.clusters.jobs_api.server import ClusterJob, Server
from cvjobs.clusters.jobs_api.submit import STOP_SECONDS
from cvjobs.common.errors import JobFailed

LATEST = STOP_SECONDS + 25.0  # until the kill, and until the cluster knows of it


def stop(server: Server, name: str) -> ClusterJob:
    """Stop a job and return it as it ended; one that has ended already is returned as it is."""
    job = known(server, name)
    if not job.over:
        server.stop(name)
    deadline = time.monotonic() + LATEST
    while not job.over:
        if time.monotonic() > deadline:
            raise JobFailed(f"Job {name} has not ended {LATEST:.0f} s after its stop: see Ray's logs at the cluster.")
        time.sleep(0.5)
        job = known(server, name)
    return job


def stop_all(server: Server, say: Callable[[str], None]) -> None:
    """Stop every job of a cluster."""
    running = [job.id for job in server.jobs() if not job.over]
    for name in running:
        say(f"stopping {name}")
        server.stop(name)
    for name in running:
        stop(server, name)
