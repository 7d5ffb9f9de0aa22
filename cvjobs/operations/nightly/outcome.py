"""What became of a night: as JSON, and as the lines that a person reads."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from cvjobs.common import formatting, tabular
from cvjobs.common.errors import Stopped
from cvjobs.common.tabular import Tabular
from cvjobs.dataset import schema
from cvjobs.operations.nightly import affected_images
from cvjobs.operations.nightly.affected_images import AffectedImages
from cvjobs.operations.nightly.pipeline_file import Pipeline
from cvjobs.operations.nightly.record import Night, StepRecord

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Outcome(Tabular):
    """A night after a command worked on it; ``exit_code`` is 0, or that of the step that ended it.

    ``computed`` counts results, ``failed`` images; ``images`` names the first ones that failed, changed or are gone.
    """

    name: str
    night: int
    status: str
    exit_code: int
    reason: str
    began: float
    seconds: float
    report: str
    computed: int
    failed: int
    images: list[dict[str, Any]]
    steps: list[dict[str, Any]]

    @classmethod
    def of(cls, pipeline: Pipeline, night: Night) -> Self:
        """Return the outcome of a night as it stands; its status is ``waiting`` where nothing of it ran yet."""
        last = night.tries[-1] if night.tries else None
        failed = [work.exit_code for work in night.steps if work.status in ("failed", "stopped")]
        code = 0 if night.status == "done" else failed[0] if failed else Stopped.exit_code
        return cls(
            name=pipeline.name,
            night=night.number,
            status=night.status if last else "waiting",
            exit_code=code or 0,
            reason=last.reason if last else "",
            began=night.began if last else time.time(),
            seconds=round(night.seconds, 2),
            report=f"{pipeline.state}/{schema.REPORT}",
            computed=affected_images.computed(night),
            failed=affected_images.failed(night)[0],
            images=[vars(one) for one in affected_images.of(night)],
            steps=[_step(work) for work in night.steps],
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return dict(vars(self))

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """Return the steps of the night, one row each."""
        return tabular.table(self.steps, columns)

    def __str__(self) -> str:
        done = sum(step["status"] == "done" for step in self.steps)
        lines = [f"night {self.night} of {self.name}: {self.status}, {done} of {len(self.steps)} steps done"]
        wide = max(len(step["name"]) for step in self.steps)
        for step in self.steps:
            took = formatting.duration(step["seconds"]) if step["seconds"] else ""
            said = ", ".join(filter(None, [took, step["reason"] or step["did"]]))
            lines.append(f"  {step['name']:<{wide}}  {step['status']:<7}  {said}".rstrip())
        told = {step["name"] for step in self.steps if step["exit_code"]}  # by the reason
        images = [AffectedImages(**one) for one in self.images]
        lines += [f"  {one}" for one in images if one.what != "failed" or not told.issuperset(one.steps)]
        return "\n".join([*lines, self.report])


class Preview(Outcome):
    """A night before a command works on it; as text what would run, in the order of the steps."""

    def __str__(self) -> str:
        left = [step for step in self.steps if step["status"] != "done"]
        lines = [f"night {self.night} of {self.name}: {len(left)} of {len(self.steps)} steps to run"]
        for step in self.steps:
            mark = "(done) " if step["status"] == "done" else ""
            lines.append(f"  {step['name']}: {mark}{step['line']}")
        return "\n".join([*lines, "nothing was run, nothing was written"])


def _step(work: StepRecord) -> dict[str, Any]:
    return {
        "name": work.name,
        "command": work.command,
        "line": work.line,
        "status": work.status,
        "exit_code": work.exit_code,
        "seconds": round(work.seconds, 2),
        "reason": work.reason,
        "did": did(work),
        "summary": work.summary,
    }


def did(work: StepRecord) -> str:
    """Return what a step did, in a few words from its own summary."""
    summary = work.summary
    always = [name for name in ("ok", "failed", "computed", "count") if "ok" in summary or name == "count"]
    words = {"count": "vectors", "written": str(summary.get("unit", "written"))}
    found = [
        formatting.counted(number, words.get(name, name))
        for name in (*always, "written", "added", "changed", "removed", "gone", "epochs")
        if isinstance(number := summary.get(name), (int, float)) and (number or name in always)
    ]
    if work.command == "query" and "queries" in summary:
        found = [formatting.counted(summary["queries"], "queries"), *found]
        found += [f"{summary['failed']:,} failed"] if summary.get("failed") else []
    if "groups" in summary:
        groups = formatting.counted(summary["groups"], "groups")
        members = formatting.counted(summary["members"], "images")
        found.append(f"{groups} of {members}" if summary["groups"] else "no near-duplicates")
    measured = summary.get("metrics") or {summary.get("metric_name"): summary.get("metric")}
    found += [f"{name} {value:.3f}" for name, value in list(measured.items())[:2] if isinstance(value, float)]
    return ", ".join(found)
