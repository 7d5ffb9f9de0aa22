"""The page of a night: its steps, each compared with the night before, and the nights before that."""

from __future__ import annotations

from dataclasses import dataclass

from cvjobs.common import formatting
from cvjobs.dataset import schema
from cvjobs.html import charts as html_charts
from cvjobs.html.charts import Histogram
from cvjobs.html.render import render
from cvjobs.operations.nightly import affected_images, compared_numbers
from cvjobs.operations.nightly.compared_numbers import ComparedNumber
from cvjobs.operations.nightly.outcome import did
from cvjobs.operations.nightly.pipeline_file import Pipeline
from cvjobs.operations.nightly.record import Night, StepRecord
from cvjobs.storage.store import Store

NIGHTS = 14


@dataclass(frozen=True, kw_only=True)
class ComparedStep:
    """A step of the night beside the same step of the night before; ``holds``: it told what its output holds."""

    work: StepRecord
    did: str
    holds: bool
    before: StepRecord | None
    rows: list[ComparedNumber]
    charts: list[Histogram]


def leave(store: Store, pipeline: Pipeline, night: Night, earlier: list[Night]) -> None:
    """Write the page of a night: into its own folder, and as the newest one into the state folder."""
    previous = next((other for other in reversed(earlier) if other.done), None)
    values = {
        "pipeline": pipeline,
        "night": night,
        "headline": _headline(night),
        "previous": previous,
        "steps": [_compared(work, previous) for work in night.steps],
        "nights": [night, *reversed(earlier)][:NIGHTS],
        "took": [(float(other.number), other.seconds) for other in [*earlier, night] if other.status == "done"],
        "affected": affected_images.of(night),
        "computed": affected_images.computed,
        "failed": _failed,
    }
    for name, here, there in (
        (f"{night.folder}/{schema.REPORT}", "", "../"),
        (schema.REPORT, f"{night.folder}/", "nights/"),
    ):
        content = render("night.html", **values, here=here, there=there).encode(errors="replace")
        store.write_bytes(name, content)


def _headline(night: Night) -> str:
    steps = f"{night.done} of {len(night.steps)} steps done"
    ended = next((work for work in night.steps if work.status not in ("done", "waiting")), None)
    if ended is None:
        return f"{steps}; no image was new, changed or gone" if affected_images.unchanged(night) else steps
    return f"{steps}; {ended.name} {'is running' if ended.status == 'running' else ended.status}"


def _failed(night: Night) -> str:
    """Return how many images failed in a night, as text."""
    count, once = affected_images.failed(night)
    return f"{'' if once else '≤ '}{formatting.count(count)}"


def _compared(work: StepRecord, previous: Night | None) -> ComparedStep:
    """Return a step beside the newest earlier one of its name and command that was done."""
    found = [w for w in (previous.steps if previous else []) if (w.name, w.command) == (work.name, work.command)]
    before = next((other for other in found if other.status == "done"), None)
    return ComparedStep(
        work=work,
        did=did(work),
        holds=affected_images.holds_results(work),
        before=before,
        rows=compared_numbers.rows(work, before),
        charts=[*_chart(before, "the night before"), *_chart(work, "this night")] if work.scores else [],
    )


def _chart(work: StepRecord | None, when: str) -> list[Histogram]:
    """Return the distribution of a step's scores, drawn; none where there are none."""
    if work is None or not any(work.scores):
        return []
    bins = len(work.scores)
    title, across, up = work.titles
    edges = [f"{i / bins:g}" for i in range(bins + 1)]
    drawn = html_charts.histogram(work.scores, edges, f"{title}, {when}", across, up, every=max(bins // 10, 1))
    return [drawn] if drawn else []
