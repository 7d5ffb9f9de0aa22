"""Check this machine: versions, safety, ports, GPUs, decoders, room; each finding with what to do.

Exit code 0: nothing is broken (there may be warnings); 1: something is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cvjobs.checkup.finding import Finding


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs doctor``."""

    json: Annotated[bool, typer.Option("--json", help="Print one JSON object: the findings, and how many of each.")] = (
        False
    )


def run(config: Config) -> int:
    """Check, print what was found, the worst last, and return the exit code."""
    import json

    found = call(config)
    levels = ("ok", "warning", "broken")
    counts = {level: sum(finding.level == level for finding in found) for level in levels}
    if config.json:
        print(json.dumps({"findings": [vars(finding) for finding in found], **counts}))
    else:
        for finding in sorted(found, key=lambda finding: levels.index(finding.level)):
            print(f"{finding.level:<7}  {finding.subject:<8}  {finding.what}")
            if finding.fix:
                print(f"{'':<19}{finding.fix}")
        print(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['broken']} broken")
    return 1 if counts["broken"] else 0


def call(config: Config) -> list[Finding]:  # noqa: ARG001 - every call takes its Config
    """Check and return what was found."""
    from cvjobs import checkup

    return list(checkup.findings())
