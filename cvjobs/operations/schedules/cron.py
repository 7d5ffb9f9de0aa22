"""A line for ``crontab -e``: everything absolute, since cron starts with next to no environment."""

from __future__ import annotations

import shlex

from cvjobs import __version__
from cvjobs.common.errors import WrongUse
from cvjobs.operations.schedule_files import ScheduleSpec

LONGEST = 999  # characters of a command that cron takes


def files(spec: ScheduleSpec) -> dict[str, str]:
    """Return the crontab's lines; the variables are set for that command alone."""
    pipeline = spec.pipeline
    variables = {"PATH": spec.path, **pipeline.variables}
    words = [*(f"{name}={shlex.quote(value)}" for name, value in variables.items()), *map(shlex.quote, spec.argv)]
    log = shlex.quote(str(pipeline.folder / f"{pipeline.name}.log"))
    command = f"{' '.join(words)} >>{log} 2>&1"
    if "\\%" in command:
        raise WrongUse(f"cron cannot hold a backslash before a percent sign, as in {command}: rename it.")
    command = command.replace("%", "\\%")  # a bare one ends the command
    if len(command) > LONGEST:
        raise WrongUse(f"cron takes {LONGEST} characters and the command has {len(command):,}: shorten its paths.")
    about = f"# {pipeline.name}: cvjobs {__version__}, for crontab -e; a night that is still running is not overlapped."
    return {f"{pipeline.name}.cron": f"{about}\n{spec.when} {command}\n"}
