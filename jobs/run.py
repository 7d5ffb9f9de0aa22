"""Run the commands of a pipeline file, one night after the other.

The steps run in order; the first one that fails ends the night, and the same command continues from there. Every night
leaves a page that links the pages of its steps and compares them with the night before.

For example `cvjobs run nightly.yaml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cvjobs.config.options import Json

if TYPE_CHECKING:
    from cvjobs.operations.nightly.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs run``."""

    pipeline: Annotated[str, typer.Argument(help="The YAML file of steps; docs/nightly.md shows one.")]
    notify_command: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="The command that gets the outcome as JSON on stdin; it is split into words and sees no shell.  "
            "[default: that of the file]",
            rich_help_panel="Results",
        ),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check everything, list what would run, and run nothing.", rich_help_panel="Look first"
        ),
    ] = False
    json: Json = False


def call(config: Config) -> Outcome:
    """Run what is left of the night and return what became of it."""
    from cvjobs.common.errors import JobFailed, explained
    from cvjobs.common.progress import tell
    from cvjobs.operations.nightly import notify as nightly_notify
    from cvjobs.operations.nightly import pipeline_file, run

    pipeline = pipeline_file.read(config.pipeline)
    notify = pipeline.notify
    if config.notify_command:
        notify = pipeline_file.argv(config.notify_command, "--notify-command")
    if config.dry_run:
        return run.preview(pipeline)
    try:
        outcome = run.run(pipeline, lambda what: tell(what, "run"))
    except Exception as error:
        if notify and isinstance(known := explained(error), JobFailed):  # as where the disk of 'state' is full
            nightly_notify.tell(notify, run.broken_off(pipeline, known), pipeline.folder)
        raise
    if notify:
        nightly_notify.tell(notify, outcome, pipeline.folder)
    return outcome
