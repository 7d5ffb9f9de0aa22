"""Files that start a pipeline at given times; the name after ``--emit`` is the name of the module that makes them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from cvjobs.common import plugins
from cvjobs.common.errors import WrongUse
from cvjobs.operations.cron_expression import Expression
from cvjobs.operations.nightly.pipeline_file import Pipeline

KINDS = ("cron", "systemd", "kubernetes")


@dataclass(frozen=True, kw_only=True)
class ScheduleSpec:
    """What is to be scheduled; ``mounts`` are (claim, path) and ``image`` a container's, for Kubernetes alone."""

    pipeline: Pipeline
    when: Expression
    image: str
    mounts: tuple[tuple[str, str], ...]

    @property
    def argv(self) -> list[str]:
        """The command of a night with this Python, as it is typed anywhere on this machine."""
        return [sys.executable, "-m", "cvjobs", "run", str(self.pipeline.file)]

    @property
    def path(self) -> str:
        """The PATH that finds what this Python's environment installed."""
        return f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"


def files(kind: str, spec: ScheduleSpec) -> dict[str, str]:
    """Return the files by name, with their content.

    Raises WrongUse where the times, a path or a variable cannot be said in such a file.
    """
    told = [spec.pipeline.name, *spec.argv, spec.path, *spec.pipeline.variables.values()]
    for text in told:
        if not text.isprintable():
            raise WrongUse(f"{text!r} holds a line break or another character that no schedule can hold: rename it.")
    made: dict[str, str] = plugins.load("cvjobs.operations.schedules", "schedule", kind, KINDS).files(spec)
    return made
