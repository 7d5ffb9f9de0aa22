"""Says so many lines on stdout and stderr in turn, and ends as it is told: what a job may do, without images.

It is a driver for tests, which `with_toys` adds to the others.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of the toy."""

    source: Annotated[str, typer.Argument(help="A word to say.")]
    out: Annotated[str | None, typer.Option("-o", "--out", help="Where it would go.")] = None
    lines: Annotated[int, typer.Option(min=0, help="How many.")] = 2
    pause: Annotated[float, typer.Option(min=0, help="Seconds after each of them.")] = 0.0
    end: Annotated[int, typer.Option(help="The exit code; a negative one is a signal.")] = 0
    stubborn: Annotated[bool, typer.Option("--stubborn", help="Do not end on SIGTERM.")] = False
    storage_option: Annotated[tuple[str, ...], typer.Option("--storage-option", help="Options.")] = ()
    address: Annotated[str | None, typer.Option(envvar="RAY_ADDRESS", help="A cluster.")] = None


def run(config: Config) -> int:
    """Say it."""

    def stop(*_: object) -> None:
        if not config.stubborn:
            print("published", file=sys.stderr, flush=True)
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    for number in range(config.lines):
        print(config.source, number, file=sys.stderr if number % 2 else sys.stdout, flush=True)
        time.sleep(config.pause)
    if config.end < 0:
        os.kill(os.getpid(), -config.end)
    return config.end
