"""A batch job from source to summary: list, subtract what is known, compute the rest, fold, account for all.

A driver brings the command's name and a way to resolve its model; everything else is the same for every job.
"""

from __future__ import annotations

import importlib.metadata
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import cvjobs
from cvjobs import crews, forecast, pool
from cvjobs.context import DECODER, LIBRARIES, Context, Job, Resolved
from cvjobs.dataset import fold, known, layout, lease, parts, plan, snapshot
from cvjobs.dataset.known import Want
from cvjobs.dataset.parts import Author, Part
from cvjobs.dataset.plan import Plan
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.decoding.lanes import Nursery
from cvjobs.errors import CvjobsError, Stopped, WrongUse
from cvjobs.forecast import Forecast
from cvjobs.listing import Listing, list_source, nothing_found
from cvjobs.options import BatchOptions
from cvjobs.progress import Progress
from cvjobs.records import Failure, digest
from cvjobs.stage import Pace
from cvjobs.stage.writing import error_rows
from cvjobs.stopping import Stop, stoppable
from cvjobs.storage import Store, open_store
from cvjobs.summary import Summary, exit_code


def run(options: BatchOptions, job: Job, decoder: str = DECODER) -> Summary | Forecast:
    """Run a batch job to its end and return what it did.

    Raises a CvjobsError with one sentence for everything a user can cause; bad images are rows in ``errors/``.
    """
    began = time.monotonic()
    if options.overwrite and options.limit:
        raise WrongUse("--overwrite replaces the results as a whole: leave out --limit, or choose another -o.")
    store = open_store(options.out)
    base = snapshot.latest(store)
    with Progress(job.command) as progress, stoppable() as stop, ExitStack() as stack:
        progress.say(f"listing {options.source}")
        listing = list_source(options.source)
        _check_source(store, base, listing)
        if not listing.images.num_rows and not base.wanted:
            raise WrongUse(nothing_found(listing))
        progress.say("looking up the model")
        # The model of a new output is about to be loaded: the decoders can get ready meanwhile.
        here = not base.version and options.workers in (None, 1) and not options.address
        nursery = stack.enter_context(closing(Nursery())) if here else None
        resolved = job.resolve(base.resolved)
        context = Context(
            options=options,
            job=job,
            resolved=resolved,
            store=store,
            listing=listing,
            fingerprint=digest(resolved.facts),
            schema=_schema(listing, resolved),
            decoder=decoder,
            nursery=nursery,
        )
        _check_fingerprint(context, base)
        context.staff()
        if options.dry_run:
            return forecast.run(context, base)
        held = lease.acquire(store)
        try:
            return _run(context, held, progress, stop, began)
        finally:
            held.release()


def _schema(listing: Listing, resolved: Resolved) -> pa.Schema:
    names = set(layout.RESERVED) | {f.name for f in layout.KEYS}
    carried = pa.schema([f for f in listing.images.schema if f.name not in names])
    metadata = {
        "cvjobs.fingerprint": digest(resolved.facts),
        "cvjobs.facts": layout.pack(resolved.facts),
        "cvjobs.source": listing.source,
        "cvjobs.versions": layout.pack(_libraries()),
    }
    return layout.result_schema(carried, resolved.opener.results).with_metadata(metadata)


def _libraries() -> dict[str, str]:
    return {"cvjobs": cvjobs.__version__, **{name: importlib.metadata.version(name) for name in LIBRARIES}}


def _check_source(store: Store, base: Snapshot, listing: Listing) -> None:
    """Refuse an output that belongs to another source."""
    source = base.source
    if not source:
        try:
            source = (layout.unpack(store.read(layout.FORMAT)) or {}).get("source", "")
        except (FileNotFoundError, NotADirectoryError):
            source = ""
    if source and source != listing.source:
        raise WrongUse(f"{store.place} holds the results of {source}: choose another -o for {listing.source}.")


def _check_fingerprint(context: Context, base: Snapshot) -> None:
    """Refuse to mix results of another model or preprocessing, naming the difference.

    Where no run has ended yet, the rows that an unfinished one left count.
    """
    fingerprint, facts = base.fingerprint, base.facts
    if not base.version:
        fingerprint, facts = _unfinished(context.store)
    if context.options.overwrite or fingerprint in ("", context.fingerprint):
        return
    differences = _differences(facts, context.resolved.facts)
    raise WrongUse(
        f"{context.store.place} was computed otherwise ({differences}): "
        "choose another -o, or --overwrite to recompute all."
    )


def _differences(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Return in words where two sets of facts differ; with another model its preprocessing goes without saying."""
    then, now = _flat(there), _flat(here)
    names = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    shown = ["model"] if "model" in names else names
    return ", ".join(f"{name} {then.get(name)} there, {now.get(name)} here" for name in shown)


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    return {**facts, **facts.get("transform", {}), "transform": None}


def _unfinished(store: Store) -> tuple[str, dict[str, Any]]:
    """Return the fingerprint and facts of the newest rows that no snapshot holds yet, empty where there are none."""
    left = parts.committed(store)
    if not left:
        return "", {}
    try:
        config = layout.unpack(store.read(f"{layout.RUNS}/{left[-1].run}/config.json")) or {}
    except FileNotFoundError:
        config = {}
    return left[-1].fingerprint, config.get("facts", {})


def _run(
    context: Context,
    held: lease.Lease,
    progress: Progress,
    stop: Stop,
    began: float,
) -> Summary:
    store, options, listing = context.store, context.options, context.listing
    run_id = layout.new_run(held.epoch)
    store.writer = run_id
    store.create(layout.FORMAT, layout.pack({"format": "cvjobs", "version": 1, "source": listing.source}))
    base = snapshot.latest(store)
    _check_fingerprint(context, base)
    epoch, mine, others = _parts(context, base)
    author = Author(run=run_id, epoch=epoch, fingerprint=context.fingerprint, listed=listing.started_ns)
    draft = _draft(context, base, run_id, epoch)
    progress.say("comparing with the output")
    start = Snapshot(version=0) if options.overwrite else base
    state = known.load(store, start, mine)
    want = plan.wanted(store, listing, state)
    if not options.allow_deletions:
        plan.guard(known.load(store, base, []) if options.overwrite else state, want, store.place)
    if options.changed_by == "content":
        want = plan.same_content(store, state, want, context.hasher)
    none = pa.array([], layout.ID)
    change = fold.Change(
        want=want,
        schema=context.schema,
        draft=draft,
        lease=held.epoch,
        listed=listing.started_ns,
        void=none,
        settled=none,
        abandoned=tuple(others),
        merge=False,
    )
    _write_run(context, author, want)
    if mine and not options.overwrite:
        # What a killed run left becomes readable now, not only when this one ends.
        base = fold.fold(store, base, mine, state, change)
        want = Want(table=want.table, accepted=want.versions.copy())
        state = known.load(store, base, [])
        mine = []
    todo = plan.plan(
        store,
        state,
        want,
        started=listing.started_ns,
        failures=listing.failures,
        retry_failed=options.retry_failed,
        limit=options.limit,
        hasher=context.hasher,
    )
    change = replace(change, want=want, void=todo.void, settled=todo.settled, merge=True)
    stop.guarded = True
    pace, error = _compute(context, held, author, todo, progress, stop)
    # Who stops a run while it publishes gets what is complete anyway.
    halted = stop.asked
    if todo.todo.num_rows or todo.failures.num_rows or mine:
        progress.say("publishing")
        held.check()
        mine = [p for p in parts.committed(store) if _belongs(p, context, epoch) and p.name not in base.folded]
        state = known.load(store, start if options.overwrite else base, mine)
    whole = error is None and not halted
    if whole or not options.overwrite:
        base = fold.fold(store, base, mine, state, replace(change, merge=whole))
    if error is not None:
        raise error
    if halted:
        raise Stopped(f"Stopped: {store.place} is consistent, the same command continues.")
    summary = _summary(context, base, todo, pace, began)
    store.write(layout.SUMMARY, lambda file: _put(file, layout.pack(summary.as_dict())))
    return summary


def _put(file: Any, content: bytes) -> None:
    file.write(content)


def _belongs(part: Part, context: Context, epoch: int) -> bool:
    return part.fingerprint == context.fingerprint and part.epoch == epoch


def _parts(context: Context, base: Snapshot) -> tuple[int, list[Part], list[Part]]:
    """Return the overwrite epoch of this run, the unfolded parts that count in it, and those that do not.

    An interrupted ``--overwrite`` with the same fingerprint goes on in its own epoch.
    """
    unfolded = [part for part in parts.committed(context.store) if part.name not in base.folded]
    epoch = base.epoch
    if context.options.overwrite:
        begun = [p.epoch for p in unfolded if p.epoch > base.epoch and p.fingerprint == context.fingerprint]
        epoch = max(begun) if begun else max((p.epoch for p in unfolded), default=base.epoch) + 1
    mine = [part for part in unfolded if _belongs(part, context, epoch)]
    return epoch, mine, [part for part in unfolded if part not in mine]


def _draft(context: Context, base: Snapshot, run_id: str, epoch: int) -> Snapshot:
    return Snapshot(
        version=base.version,
        run=run_id,
        epoch=epoch,
        fingerprint=context.fingerprint,
        facts=context.resolved.facts,
        resolved=context.resolved.note,
        source=context.listing.source,
        root=context.listing.root,
        skipped=context.listing.skipped,
        libraries=_libraries(),
    )


def _write_run(context: Context, author: Author, want: Want) -> None:
    """Freeze what this run wants and how it was asked for."""
    folder = f"{layout.RUNS}/{author.run}"
    config = {
        "command": context.job.command,
        "options": vars(context.options),
        "author": vars(author),
        "facts": context.resolved.facts,
    }
    context.store.write(f"{folder}/config.json", lambda file: _put(file, layout.pack(config)))
    keys = want.table.select([f.name for f in layout.KEYS])
    parts.write_table(context.store, f"{folder}/listing.parquet", keys.schema, [keys])


def _compute(
    context: Context,
    held: lease.Lease,
    author: Author,
    todo: Plan,
    progress: Progress,
    stop: Stop,
) -> tuple[Pace, CvjobsError | None]:
    """Commit the rows that are to be computed; an error is returned, so that what is done is folded first."""
    store = context.store
    if todo.failures.num_rows:
        failures = [
            Failure("list", code, detail)
            for code, detail in zip(todo.failures["code"].to_pylist(), todo.failures["detail"].to_pylist(), strict=True)
        ]
        parts.commit(store, author, None, error_rows(todo.failures, failures))
    if not todo.todo.num_rows:
        return Pace(), None
    workers, distributed = context.staff()
    spec = context.spec(author, held.epoch, store.place, workers)

    def uncommitted(table: pa.Table) -> pa.Table:
        done = known.load(store, Snapshot(version=0), [p for p in parts.committed(store) if p.run == author.run])
        return table.filter(pc.invert(pc.is_in(table["image_id"], value_set=done.ids))) if len(done.ids) else table

    def give_up(table: pa.Table) -> None:
        failure = Failure("worker", "worker_crash", "two workers died when they had only this image", 2)
        parts.commit(store, author, None, error_rows(table.select([f.name for f in layout.KEYS]), [failure]))

    progress.say(f"starting {context.resolved.title}")
    total = todo.todo.num_rows
    shards = pool.Shards(todo.todo, workers)
    crew: crews.LocalCrew | crews.RayCrew | None = None
    try:
        with crews.crew(spec, workers, distributed, context.options.address, context.nursery) as crew:
            watcher = _Watcher(crew, progress, total)
            for _ in pool.work(crew, shards, uncommitted, give_up, lambda: watcher.look() or stop.asked):
                continue
    except CvjobsError as error:
        # Ctrl-C reaches every process of the group: what fails because of it is no failure.
        return _overall(crew.paces() if crew else []), None if stop.asked else error
    return _overall(crew.paces()), None


class _Watcher:
    """Keeps the progress bar current while the loop waits."""

    def __init__(self, crew: crews.LocalCrew | crews.RayCrew, progress: Progress, total: int) -> None:
        self._crew, self._progress, self._total = crew, progress, total

    def look(self) -> bool:
        """Show the pace; False, so that the loop goes on."""
        pace = _overall(self._crew.paces())
        if pace.answered:
            self._progress.update(min(pace.answered, self._total), self._total, pace.failed, _rate(pace))
        return False


def _overall(paces: list[Pace]) -> Pace:
    """Return the pace of several Stages as one: from the earliest first result to the latest last one."""
    begun = [pace for pace in paces if pace.first]
    earliest = min(begun, key=lambda pace: pace.first, default=Pace())
    return Pace(
        answered=sum(pace.answered for pace in paces),
        failed=sum(pace.failed for pace in paces),
        first=earliest.first,
        first_count=earliest.first_count,
        last=max((pace.last for pace in begun), default=0.0),
    )


def _rate(pace: Pace) -> float:
    elapsed = pace.last - pace.first
    return (pace.answered - pace.failed - pace.first_count) / elapsed if elapsed > 0 else 0.0


def _summary(context: Context, base: Snapshot, todo: Plan, pace: Pace, began: float) -> Summary:
    skipped = sum(context.listing.skipped.values())
    remaining = min(todo.left, base.wanted - base.ok - base.failed)
    codes: dict[str, int] = {}
    for file in base.errors:
        counts = snapshot.read_table(context.store, file, ["code"])["code"].value_counts()
        for entry in counts.to_pylist():
            codes[entry["values"]] = codes.get(entry["values"], 0) + entry["counts"]
    return Summary(
        listed=base.wanted + skipped,
        ok=base.ok,
        failed=base.failed,
        skipped=skipped,
        remaining=remaining,
        reused=todo.reused,
        computed=todo.todo.num_rows + todo.failures.num_rows,
        seconds=round(time.monotonic() - began, 2),
        images_per_second=round(_rate(pace), 1),
        out=context.store.place,
        version=base.version,
        exit_code=exit_code(
            base.ok,
            base.failed,
            base.wanted - base.ok - base.failed - remaining,
            context.options.max_error_rate,
        ),
        model=context.resolved.title,
        failures=codes,
        skipped_by=context.listing.skipped,
    )
