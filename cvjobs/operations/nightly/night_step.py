"""Runs one step of a night: a command in a process of its own, whose messages pass through and are kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from cvjobs.clusters.jobs_api.runtime import NIGHT
from cvjobs.common import control_groups
from cvjobs.common.errors import CvjobsError
from cvjobs.common.formatting import counted, size, visible_lines
from cvjobs.common.signals import Stop
from cvjobs.operations.nightly import child
from cvjobs.operations.nightly.pipeline_file import NightStep
from cvjobs.sources import reasons
from cvjobs.sources.left_out import NamedCount

LOOK = 0.1
LONGEST = 1 << 20  # bytes of an answer: rows of a query are longer and no summary
_NAMES = ("first_failed", "first_changed", "first_gone")  # of images, the first ones
_REASONS = {
    3: "more images failed than --max-error-rate allows",
    4: "it ended with images missing",
    130: "it was stopped",
}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: ``code`` is an exit code, ``reason`` empty for 0, ``summary`` its JSON's plain values."""

    code: int
    reason: str = ""
    summary: dict[str, Any] = field(default_factory=dict)


def run(step: NightStep, folder: Path, files: Path, stop: Stop, glance: Callable[[], None]) -> Ended:
    """Run a step's command in a folder; ``files`` with ``.log`` is what it said, with ``.json`` what it answered.

    The command is told once to stop when ``stop`` is asked, and brings its output to rest first. KeyboardInterrupt, a
    second Ctrl-C, ends it at once. ``glance`` is called often; the command is stopped where it raises an error.
    """
    log, answer = (files.with_name(f"{files.name}.{kind}") for kind in ("log", "json" if step.json else "txt"))
    words = [*step.words[:1], "--config", os.devnull, *step.words[1:]]
    killed = control_groups.killed()
    if step.json:
        words.insert(1, "--json")
    with log.open("wb") as said, answer.open("wb") as answered:
        process = subprocess.Popen(
            [sys.executable, "-P", child.__file__, str(os.getpid()), *words],
            cwd=folder,
            env={**os.environ, NIGHT: "1"},
            stdin=subprocess.DEVNULL,
            stdout=answered,
            stderr=said,
            process_group=0,  # Ctrl-C reaches the night alone, which passes it on once
        )
    with log.open("rb") as messages:
        try:
            _wait(process, messages, stop, glance)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            _pass_on(messages)
    short = control_groups.killed() > killed
    return _ended(process.returncode, log, answer if step.json else None, short)


def _wait(process: subprocess.Popen[bytes], messages: BinaryIO, stop: Stop, glance: Callable[[], None]) -> None:
    told = False
    while process.poll() is None:
        try:
            glance()
        except CvjobsError:
            process.send_signal(signal.SIGTERM)
            process.wait()
            raise
        if stop.asked and not told:
            told = True
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(LOOK)
        except subprocess.TimeoutExpired:
            _pass_on(messages)


def _pass_on(messages: BinaryIO) -> None:
    """Show what the command has said since we last looked."""
    if new := messages.read():
        sys.stderr.write(visible_lines(new.decode(errors="replace")))
        sys.stderr.flush()


def _ended(code: int, log: Path, answer: Path | None, short: bool) -> Ended:
    """Return how a command ended; ``short``: the system killed a process of this control group for memory meanwhile."""
    summary = _summary(answer) if answer else {}
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return Ended(code=1, reason=killed(short), summary=summary)
    if code < 0:
        return Ended(code=1, reason=f"it was killed by {signal.Signals(-code).name}", summary=summary)
    reason = (
        spent(summary)
        or _failed(code, summary)
        or _sentence(log)
        or _REASONS.get(code, f"it ended with exit code {code}")
    ) * (code != 0)
    return Ended(code=code, reason=reason, summary=summary)


def spent(summary: dict[str, Any]) -> str:
    """Return which limit of time or money a batch job reached, and what remains; empty where it reached none."""
    limit, left = summary.get("spent"), summary.get("remaining")
    return f"{limit} is reached, and {counted(left, 'images remain')}" if limit and isinstance(left, int) else ""


def _failed(code: int, summary: dict[str, Any]) -> str:
    """Return how many images of a batch job failed where there were too many, and why; empty where it does not say."""
    ok, failed, codes = (summary.get(name) for name in ("ok", "failed", "failures"))
    if code != 3 or not isinstance(ok, int) or not isinstance(failed, int) or not isinstance(codes, dict):
        return ""
    named = {code: NamedCount(count=count, first=_first(summary, code)) for code, count in codes.items()}
    found = f"{failed:,} of {counted(ok + failed, 'images')} failed: {reasons.words(named)}"
    return f"{found}; --max-error-rate allows fewer"


def _first(summary: dict[str, Any], code: str) -> list[str]:
    names: list[str] = summary.get("first_failed", {}).get(code, {}).get("first", [])
    return names


def killed(short: bool) -> str:
    """Return why a command may have been killed by a signal that lets it say nothing."""
    if not short:
        return "it was killed (signal 9); short of memory is the usual reason"
    held = control_groups.memory_left()
    limit = f" of {size(held[0])}" if held else ""
    return (
        f"it was killed (signal 9), for the memory{limit} ran out: "
        "allow it more, or use a smaller model, --batch-size or number of --workers"
    )


def _sentence(log: Path) -> str:
    """Return the last sentence of a command about itself."""
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - LONGEST, 0))
        lines = file.read().decode(errors="replace").splitlines()
    said = [line.removeprefix("cvjobs: ") for line in lines if line.startswith("cvjobs: ")]
    return said[-1] if said else ""


def _summary(answer: Path) -> dict[str, Any]:
    """Return numbers, texts, counts by name and names of images of the JSON object that a command answered with."""
    if answer.stat().st_size > LONGEST:
        return {}
    try:
        found = json.loads(answer.read_bytes())
    except ValueError:
        return {}
    return {k: v for k, v in found.items() if k in _NAMES or _plain(v)} if isinstance(found, dict) else {}


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(entry, (int, float, type(None))) for entry in value.values())
    return isinstance(value, (int, float, str))
