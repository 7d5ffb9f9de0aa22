"""What happened in each night: one JSON record a night in the state folder, the newest 30 of them kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any, Literal, TypeVar

from cvjobs.dataset import contents, sealed
from cvjobs.operations.nightly.pipeline_file import NightStep, Pipeline
from cvjobs.storage.local_store import TEMPORARY
from cvjobs.storage.store import Store

KEPT = 30
FOLDER = contents.NIGHT_RECORDS
# The same command continues a night that was last heard of so long ago (s); after that it begins the next one. A night
# that failed at two is continued in the morning, and the one of the day after sees what is new from its first step on.
SAME = 12 * 3600.0

# Of a summary, what a try did itself; the rest is the state of its output.
DONE = ("computed", "changed", "gone", "first_changed", "first_gone")

Kind = TypeVar("Kind")
Status = Literal["waiting", "running", "done", "failed", "stopped", "killed"]


@dataclass(kw_only=True)
class StepRecord:
    """One step of a night: how its last try went.

    ``summary`` holds the plain values of the command's JSON and the first names of images that failed, changed or are
    gone; ``earlier`` what tries before the last one did themselves, and their ``seconds``. ``scores`` and ``titles``
    are ``counts`` and ``titles`` of ``scores.ResultScores``; ``source`` is the option of that name.
    """

    name: str
    command: str
    line: str
    digest: str
    status: Status = "waiting"
    exit_code: int | None = None
    began: float = 0.0
    ended: float = 0.0
    reason: str = ""
    page: str = ""
    tries: int = 0
    summary: dict[str, Any] = field(default_factory=dict)
    scores: list[int] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    source: str = ""
    earlier: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long the last try took."""
        return max(self.ended - self.began, 0.0)

    def begin(self) -> None:
        """Note that a try begins now; what the one before it did to images stays the night's."""
        did = {name: self.summary[name] for name in DONE if name in self.summary}
        took = {"seconds": self.seconds} if self.seconds else {}
        self.earlier += [did | took] if did or took else []
        self.status, self.began, self.ended, self.tries = "running", time.time(), 0.0, self.tries + 1
        self.exit_code, self.reason, self.page, self.summary = None, "", "", {}
        self.scores, self.titles = [], []


@dataclass(kw_only=True)
class Try:
    """One command that worked on a night: from which step on, and how it ended."""

    began: float
    ended: float
    status: Status
    step: str = ""
    reason: str = ""


@dataclass(kw_only=True)
class Night:
    """One night: its steps in their order, and the commands that worked on it.

    ``failed`` counts the images that have an error in some of the steps' outputs, each once; None where that is not
    known, as in records of earlier versions.
    """

    pipeline: str
    number: int
    status: Status = "running"
    steps: list[StepRecord] = field(default_factory=list)
    tries: list[Try] = field(default_factory=list)
    failed: int | None = None

    @property
    def folder(self) -> str:
        """The folder of the night in the state folder."""
        return f"{FOLDER}/{self.number:04d}"

    @property
    def began(self) -> float:
        """When the night began (s since 1970)."""
        return self.tries[0].began

    @property
    def ended(self) -> float:
        """When the night was last heard of."""
        return max(self.tries[-1].ended, *(work.ended or work.began for work in self.steps))

    @property
    def seconds(self) -> float:
        """How long its steps took, whenever they ran: all tries of them that records of this version know."""
        before = sum(float(told.get("seconds", 0)) for work in self.steps for told in work.earlier)
        return before + sum(work.seconds for work in self.steps)

    @property
    def done(self) -> int:
        """How many of its steps are done."""
        return sum(work.status == "done" for work in self.steps)

    def bury(self) -> None:
        """Note that the command that worked on the night was killed, where its record says that it is running."""
        if self.status != "running":
            return
        self.status = self.tries[-1].status = "killed"
        self.tries[-1].reason = "the command was killed, or its machine went down"
        for work in self.steps:
            work.status = "killed" if work.status == "running" else work.status

    @classmethod
    def load(cls, record: Mapping[str, Any]) -> Night:
        """Return the night that a JSON record describes; raises KeyError or TypeError where it describes none."""
        steps = [_known(StepRecord, step) for step in record["steps"]]
        tries = [_known(Try, attempt) for attempt in record["tries"]]
        if not steps or not tries:
            raise KeyError("steps")
        return _known(cls, {**record, "steps": steps, "tries": tries})


def _known(kind: type[Kind], record: Mapping[str, Any]) -> Kind:
    return kind(**{f.name: record[f.name] for f in fields(kind) if f.name in record})  # type: ignore[arg-type]


def load(store: Store) -> list[Night]:
    """Return the nights that are kept, oldest first; one that is damaged is left out, which is said on stderr."""
    found = []
    for number in numbers(store):
        try:
            record = sealed.unpack(store.read(file_of(number)))
            night = Night.load(record or {})
            if night.number != number:
                raise KeyError("number")
            found.append(night)
        except FileNotFoundError:
            continue
        except (KeyError, TypeError, AttributeError):
            _say(f"{store.place}/{file_of(number)} is damaged: that night is left out")
    return found


@cache
def _say(damage: str) -> None:
    print(f"cvjobs: {damage}.", file=sys.stderr, flush=True)


def file_of(number: int) -> str:
    """Return the file name of a night's record."""
    return f"{FOLDER}/{number:04d}/night.json"


def numbers(store: Store) -> list[int]:
    """Return the numbers of the nights that are kept, in order."""
    return sorted(int(name) for name in store.names(FOLDER) if name.isascii() and name.isdigit())


def keep(store: Store, night: Night) -> None:
    """Write the record of a night; raises what the store raises."""
    content = sealed.pack(asdict(night), in_order=False)  # but as the commands told it
    store.write_bytes(file_of(night.number), content)


def tidy(store: Store) -> None:
    """Forget the oldest nights, and what a killed command left half-written."""
    kept = numbers(store)
    store.delete(*(f"{FOLDER}/{number:04d}" for number in kept[:-KEPT]))
    for folder in (".", *(f"{FOLDER}/{number:04d}" for number in kept[-KEPT:])):
        store.delete(*(f"{folder}/{name}" for name in store.names(folder) if name.startswith(TEMPORARY)))


def tonight(store: Store, pipeline: Pipeline, earlier: list[Night]) -> Night:
    """Return the night that a command works on now: the last one where it is to be continued, or a new one.

    Steps that are done stay done up to the first whose command line is another one than before.
    """
    last = earlier[-1] if earlier else None
    newest = max([0, *numbers(store)])
    # What a night had done whose record is damaged nobody knows, and the one before it is over.
    if last is None or last.number != newest or not _same(last, pipeline):
        number = newest + 1
        return Night(pipeline=pipeline.name, number=number, steps=[_new(step) for step in pipeline.steps])
    before = {work.name: work for work in last.steps}
    steps: list[StepRecord] = []
    for step in pipeline.steps:
        work = before.get(step.name)
        same = work is not None and work.digest == step.digest
        ready = all(earlier.status == "done" for earlier in steps)
        steps.append(work if work and same and (ready or work.status != "done") else _new(step))
    return Night(pipeline=pipeline.name, number=last.number, steps=steps, tries=last.tries, failed=last.failed)


def _same(last: Night, pipeline: Pipeline) -> bool:
    recent = time.time() - last.ended < SAME
    return last.status != "done" and recent and last.steps[0].digest == pipeline.steps[0].digest


def _new(step: NightStep) -> StepRecord:
    source = str(step.values.get("source") or "")
    return StepRecord(name=step.name, command=step.command, line=step.line, digest=step.digest, source=source)
