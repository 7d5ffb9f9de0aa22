"""Run the commands of a pipeline file, one night after the other.

The steps run in order; the first that fails ends the night, and the same command continues it from there. Every night
leaves a page that links those of its steps and compares it with the night before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cvjobs.pipeline.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs run``."""

    pipeline: Annotated[str, typer.Argument(help="A YAML file of steps: docs/nightly.md shows one.")]
    notify_command: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="Gets the outcome as JSON on stdin; split into words, never a shell's."),
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and list what would run.")] = False
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else, on stdout.")] = False


def run(config: Config) -> int:
    """Run what is left of the night, print what became of it and return the exit code."""
    import json

    outcome = call(config)
    if config.json:
        print(json.dumps(outcome.as_dict()))
    else:
        print(outcome.plan() if config.dry_run else outcome)
    return 0 if config.dry_run else outcome.exit_code


def call(config: Config) -> Outcome:
    """Run what is left of the night and return what became of it."""
    import sys

    from cvjobs.pipeline import night, notice, plan

    pipeline = plan.read(config.pipeline)
    notify = pipeline.notify
    if config.notify_command:
        notify = plan.argv(config.notify_command, "--notify-command")
    if config.dry_run:
        return night.preview(pipeline)
    outcome = night.run(pipeline, lambda what: print(f"run: {what}", file=sys.stderr, flush=True))
    if notify:
        notice.tell(notify, outcome, pipeline.folder)
    return outcome
