"""Jobs as lines that a person reads."""

from __future__ import annotations

import time

from cvjobs.clusters.jobs_api.server import ClusterJob

WIDEST = 100
HEAD = ("id", "status", "exit", "started", "took", "command")


def text(jobs: list[ClusterJob]) -> str:
    """Return one line a job below a line of titles."""
    rows = [HEAD, *map(_row, jobs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(job: ClusterJob) -> tuple[str, ...]:
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.started)) if job.started else ""
    took = f"{(job.ended or time.time()) - job.started:,.0f} s" if job.started else ""
    command = job.command.replace(" --config=/dev/null", "").replace(" -- ", " ").replace("\n", "\\n")
    short = command if len(command) <= WIDEST else f"{command[: WIDEST - 3]}..."
    return (job.id, job.status.lower(), "" if job.exit_code is None else str(job.exit_code), started, took, short)
