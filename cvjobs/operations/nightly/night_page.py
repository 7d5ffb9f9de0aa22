"""The page of a night: its steps, each compared with the night before, and the nights before that."""

from __future__ import annotations

from dataclasses import dataclass

from cvjobs.dataset import schema
from cvjobs.html import charts as html_charts
from cvjobs.html.charts import Histogram
from cvjobs.html.render import render
from cvjobs.operations.nightly.outcome import did
from cvjobs.operations.nightly.pipeline_file import Pipeline
from cvjobs.operations.nightly.record import Night, StepRecord
from cvjobs.prediction.report.findings import REMEMBERED
from cvjobs.storage.store import Store

NIGHTS = 14
CLASSES = 12
_ABSENT = 0.0  # how often something happened that a night does not mention
# Numbers that say how a command was set or named, not what the night was like.
_SETTINGS = frozenset(
    {"exit_code", "version", "generation", "dim", "k", "min_score", "target_recall", "nprobe", "rerank"}
)
_WORDS = {"count": "vectors", "images_per_second": "images a second", "recall": "recall@10", "seconds": "seconds"}


@dataclass(frozen=True, kw_only=True)
class ComparedStep:
    """A step of the night beside the same step of the night before; ``rows`` are (what, then, now)."""

    work: StepRecord
    did: str
    before: StepRecord | None
    rows: list[tuple[str, float | None, float]]
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
        "total": total,
    }
    for name, here, there in (
        (f"{night.folder}/{schema.REPORT}", "", "../"),
        (schema.REPORT, f"{night.folder}/", "nights/"),
    ):
        content = render("night.html", **values, here=here, there=there).encode(errors="replace")
        store.write_bytes(name, content)


def total(night: Night, key: str) -> float:
    """Return the sum of a count over the steps of a night; `verify` counts again what others made."""
    made = [work for work in night.steps if work.status == "done" and work.command != "verify"]
    found = [work.summary.get(key, 0) for work in made]
    return sum(value for value in found if isinstance(value, (int, float)))


def _headline(night: Night) -> str:
    steps = f"{night.done} of {len(night.steps)} steps done"
    ended = next((work for work in night.steps if work.status not in ("done", "waiting")), None)
    if ended is None:
        return steps
    return f"{steps}; {ended.name} {'is running' if ended.status == 'running' else ended.status}"


def _compared(work: StepRecord, previous: Night | None) -> ComparedStep:
    """Return a step beside the newest earlier one of its name and command that was done."""
    found = [w for w in (previous.steps if previous else []) if (w.name, w.command) == (work.name, work.command)]
    before = next((other for other in found if other.status == "done"), None)
    then, now = (_numbers(before) if before else {}), _numbers(work)
    now |= {name: _ABSENT for name in then if ": " in name and name not in now}
    names = list(now) if work.summary else []
    rows = [(_WORDS.get(name, name), then.get(name, _ABSENT if ": " in name else None), now[name]) for name in names]
    return ComparedStep(
        work=work,
        did=did(work),
        before=before,
        rows=[row for row in [*rows, *_classes(work, before)] if row[1] or row[2]],
        charts=[*_chart(before, "the night before"), *_chart(work, "this night")] if work.scores else [],
    )


def _classes(work: StepRecord, before: StepRecord | None) -> list[tuple[str, float | None, float]]:
    """Return the most frequent classes of both nights; one that a full record does not mention is not known."""
    now, then = work.summary.get("classes", {}), before.summary.get("classes", {}) if before else {}
    absent = _ABSENT if len(then) < REMEMBERED else None
    names = {**now, **then} if len(now) < REMEMBERED else now
    most = sorted(names, key=lambda name: (-max(now.get(name, 0.0), then.get(name, 0.0)), name))
    return [(name, then.get(name, absent), now.get(name, _ABSENT)) for name in most[:CLASSES]]


def _chart(work: StepRecord | None, when: str) -> list[Histogram]:
    """Return the distribution of a step's scores, drawn; none where there are none."""
    if work is None or not any(work.scores):
        return []
    bins = len(work.scores)
    title, across, up = work.titles
    edges = [f"{i / bins:g}" for i in range(bins + 1)]
    drawn = html_charts.histogram(work.scores, edges, f"{title}, {when}", across, up, every=max(bins // 10, 1))
    return [drawn] if drawn else []


def _numbers(work: StepRecord) -> dict[str, float]:
    """Return what a step's summary counts and measures, by its name."""
    found: dict[str, float] = {}
    for key, value in {**work.summary, "seconds": work.seconds}.items():
        if key in ("classes", "phases") or (key.endswith("_per_second") and not value):
            continue  # classes have rows of their own, phases are on the step's page; 0 is no rate
        name = key if key in _WORDS else key.replace("_", " ")
        if isinstance(value, dict):
            own = "" if key == "found" else f"{name}: "
            found |= {f"{own}{inner.replace('_', ' ')}": float(number) for inner, number in value.items()}
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and key not in _SETTINGS:
            found[name] = float(value)
    return found
