"""Making the page of one run: what the run, the output and its history say, put into ``report.html``."""

from __future__ import annotations

import shlex
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import pyarrow as pa

from cvjobs.common import categories, phases
from cvjobs.common.devices import machine
from cvjobs.common.formatting import counted
from cvjobs.common.phases import Phases
from cvjobs.dataset import schema as dataset_schema
from cvjobs.dataset.changes import Plan
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.html.render import render
from cvjobs.html.thumbnails import Thumbnail, thumbnails
from cvjobs.images import blank_images
from cvjobs.prediction.context import Context
from cvjobs.prediction.engine.throughput import Pace
from cvjobs.prediction.report import contact_sheet, failure_table, findings, history, result_pictures
from cvjobs.prediction.report.bounds import bound
from cvjobs.prediction.report.contact_sheet import BUDGET, ContactSheet
from cvjobs.prediction.report.failure_table import Reason
from cvjobs.prediction.report.findings import Findings
from cvjobs.prediction.report.history import Record
from cvjobs.prediction.summary import Summary
from cvjobs.sources.left_out import first_names
from cvjobs.sources.left_out import rows as left_out_rows

PICTURED = 12
RUNS = 8


@dataclass(kw_only=True)
class Run:
    """What a run was and did, as far as it got; ``reason`` is the sentence with which it stopped or failed.

    ``spent`` is the limit of time or money that it reached before all was computed, as the option that sets it, and
    ``committed`` are the images that have a row of it then.
    ``began`` is s since 1970; ``rates`` as in ``Speed.rates``.
    """

    phases: Phases = field(default_factory=Phases)
    began: float = field(default_factory=time.time)
    status: str = "finished"
    reason: str = ""
    plan: Plan | None = None
    pace: Pace = field(default_factory=Pace)
    rates: list[tuple[float, float]] = field(default_factory=list)
    workers: str = "none: there was nothing to compute"
    device: str = ""
    spent: str = ""
    committed: int = 0
    _sheet: Future[ContactSheet] | None = None

    def picture(self, context: Context) -> None:
        """Begin the contact sheet of vectors, in a thread of its own; other results have pictures of their own."""
        assert self.plan is not None
        if not categories.task(context.resolved.facts):
            done = self.plan.todo.slice(0, self.pace.answered)
            self._sheet = ThreadPoolExecutor(1, "pictures").submit(contact_sheet.sample, context, done)

    @property
    def sheet(self) -> ContactSheet:
        """The contact sheet; waits for it."""
        return self._sheet.result() if self._sheet else ContactSheet([])


def longest(context: Context) -> float:
    """Return the seconds that the page of a run that was stopped may take by its own bounds, beside writing it."""
    looks = categories.task(context.resolved.facts) in findings.TASKS
    return BUDGET + looks * (findings.STOPPED + result_pictures.READING + result_pictures.DRAWING)


def leave(context: Context, run: Run, base: Snapshot, summary: Summary) -> None:
    """Write the page and add the run to the history; raises what the store raises."""
    assert run.plan is not None
    earlier = history.load(context.store)
    previous = earlier[-1] if earlier else None
    idle, stopped = not run.pace.answered, run.status != "finished"
    before = previous.by_class if previous else {}
    found = findings.find(context, base, run.phases.seconds, stopped, idle, before)
    record = _record(run, summary, found)
    reasons = failure_table.reasons(context.store, base, run.plan.outdated)
    sheet, pictures = _sheet(context, run, record, found), _pictures(context, reasons)
    summary = summary.at(run.phases.spent(), context.allowance.machines)
    values = {
        "title": f"cvjobs {context.job.command}: {context.store.place}",
        "command": context.job.command,
        "run": run,
        "sheet": sheet,
        "findings": found,
        "summary": summary,
        "record": record,
        "headline": _headline(run, summary, record),
        "bound": bound(run.pace, run.device or context.resolved.device),
        "reasons": reasons,
        "pictures": pictures,
        "skipped": left_out_rows(summary.left_out),
        "blank": _blank(record, earlier),
        "previous": previous,
        "changes": _changes(previous, record) if previous else [],
        "runs": [*earlier, record][-RUNS:][::-1],
        "grown": [(float(i), float(r.ok)) for i, r in enumerate([*earlier, record], start=1)],
        "phases": phases.shares(summary.phases),
        "facts": _facts(context, run, base),
    }
    page = render("findings.html" if found else "report.html", **values).encode(errors="replace")
    history.keep(context.store, [*earlier, record])
    context.store.write_bytes(dataset_schema.REPORT, page)


def _sheet(context: Context, run: Run, record: Record, found: Findings | None) -> ContactSheet:
    """Return the run's own contact sheet, or for a run that computed nothing the one that is kept."""
    if found:
        return ContactSheet([])
    if not run.pace.answered:
        return contact_sheet.load(context.store, context.listing.images)
    if run.sheet.images:
        contact_sheet.keep(context.store, run.sheet, record.ended)
    return run.sheet


def _blank(record: Record, earlier: list[Record]) -> tuple[list[tuple[str, str]], float]:
    """Return what many images have in common, with the first names, and when that run ended (0: this one).

    A run that decoded nothing says it of the last one that did.
    """
    runs = [run for run in (*earlier, record) if run.blank.get("images")]
    if not runs:
        return [], 0.0
    said = [(text, first_names(count, first)) for text, count, first in blank_images.many(runs[-1].blank)]
    return said, 0.0 if runs[-1] is record else runs[-1].ended


def _record(run: Run, summary: Summary, found: Findings | None) -> Record:
    assert run.plan is not None
    return Record(
        version=summary.version,
        started=round(run.began, 3),
        ended=round(time.time(), 3),
        status=run.status,
        listed=summary.listed,
        ok=summary.ok,
        failed=summary.failed,
        skipped=summary.skipped,
        # What a worker answered that died before it was durable is answered twice.
        computed=summary.computed
        if summary.spent
        else min(run.pace.answered, run.plan.todo.num_rows) + run.plan.failures.num_rows,
        new=run.plan.new,
        changed=len(run.plan.outdated),
        gone=run.plan.gone,
        seconds=summary.seconds,
        images_per_second=summary.images_per_second,
        failures=dict(summary.failures),
        numbers=found.numbers if found else {},
        by_class=found.by_class if found else {},
        blank=summary.blank,
    )


def _headline(run: Run, summary: Summary, record: Record) -> str:
    """Return the run in one sentence: the state of the whole output; what this run did to it."""
    images = summary.listed - summary.skipped
    if run.status != "finished":
        left = images - summary.ok - summary.failed
        if not images:
            return "No image has a result yet"
        ok = f"{summary.ok:,} of {counted(images, 'images have')} a result"
        return f"{ok}; {summary.failed:,} failed, {left:,} still to do"
    state = f"{images:,} image{'' if images == 1 else 's'}: {summary.ok:,} ok, {summary.failed:,} failed, "
    state += f"{summary.missing:,} missing"
    if summary.remaining:
        state += f", {summary.remaining:,} left for later runs"
    again = record.computed - record.new - record.changed
    did = [(record.new, "new"), (record.changed, "changed"), (again, "tried again"), (record.gone, "gone")]
    done = [f"{count:,} {what}" for count, what in did if count > 0]
    return f"{state}; {', '.join(done) if done else 'nothing to do'}"


def _changes(previous: Record, now: Record) -> list[tuple[str, float, float]]:
    """Return (what, then, now) of everything that two runs can be compared in."""
    rows: list[tuple[str, float, float]] = [
        ("listed", previous.listed, now.listed),
        ("ok", previous.ok, now.ok),
        ("failed", previous.failed, now.failed),
        ("skipped", previous.skipped, now.skipped),
        ("computed by the run", previous.computed, now.computed),
        ("seconds", previous.seconds, now.seconds),
    ]
    if previous.images_per_second and now.images_per_second:
        rows.append(("images a second", previous.images_per_second, now.images_per_second))
    rows += [(what, previous.numbers[what], now.numbers[what]) for what in now.numbers if what in previous.numbers]
    for code in sorted({*previous.failures, *now.failures}):
        rows.append((f"failed: {code}", previous.failures.get(code, 0), now.failures.get(code, 0)))
    return rows


def _pictures(context: Context, reasons: list[Reason]) -> dict[str, Thumbnail]:
    """Return thumbnails, by path, of listed failures whose images can be decoded: those that failed in the model."""
    listed = [row for reason in reasons for row in reason.rows if row["stage"] in ("infer", "worker")][:PICTURED]
    if not listed:
        return {}
    schema = pa.schema([dataset_schema.KEYS[0], dataset_schema.KEYS[2], pa.field("modified", pa.int64())])
    rows = pa.table({name: [row[name] for row in listed] for name in schema.names}, schema=schema)
    like = context.resolved.transform.record()
    images = thumbnails(context.source, rows, BUDGET, decoder_server=context.decoder_server, like=like)
    return {row["path"]: image for row, image in zip(listed, images, strict=True) if image.uri}


def _facts(context: Context, run: Run, base: Snapshot) -> list[tuple[str, str]]:
    resolved, device = context.resolved, run.device or context.resolved.device
    return [
        ("command", _command(context)),
        ("source", context.listing.source),
        ("output", context.store.place),
        ("model", resolved.title),
        ("licence", resolved.licence.words),
        ("device", device),
        ("workers", run.workers),
        ("machine", machine(device)),
        *_cost(context, run),
        ("snapshot", f"{base.version}, fingerprint {context.fingerprint[:16]}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in context.order.libraries.items())),
    ]


def _cost(context: Context, run: Run) -> list[tuple[str, str]]:
    cost = context.allowance.machines.cost(run.phases.seconds)
    return [("cost", str(cost))] if cost.usd is not None else []


def _command(context: Context) -> str:
    """Return the command line that asks for the same, without options that have their defaults."""
    shown: dict[str, Any] = context.order.config["options"]
    words = ["cvjobs", context.job.command, str(context.options.source), "-o", str(context.options.out)]
    for option in fields(context.options):
        value = shown[option.name]
        default = option.default if option.default is not MISSING else None
        if option.name in ("source", "out", "json", "dry_run") or value in (default, (), []):
            continue
        flag = f"--{option.name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag)
        elif isinstance(value, (tuple, list)):
            words += [word for item in value for word in (flag, str(item))]
        else:
            words += [flag, str(value)]
    return shlex.join(words)
