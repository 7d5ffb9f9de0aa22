"""A batch job from source to summary: list, subtract what is known, compute the rest, merge, account for all.

A driver brings the command's name and a way to resolve its model; everything else is the same for every job.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.clusters.allowance import Allowance
from cvjobs.clusters.link import Link
from cvjobs.common import phases, rates
from cvjobs.common.errors import CvjobsError, LimitSpent, OutputHeld, Stopped, WrongUse, limit
from cvjobs.common.failures import Failure
from cvjobs.common.fingerprint import digest, libraries
from cvjobs.common.formatting import counted, shortened
from cvjobs.common.paths import path_bytes
from cvjobs.common.phases import IMPORTING
from cvjobs.common.progress import Progress, tell
from cvjobs.common.signals import Stop, stoppable
from cvjobs.config.options import BatchOptions
from cvjobs.config.spending import spending
from cvjobs.dataset import contents, lock, parts, schema, snapshot, verified
from cvjobs.dataset import keys as dataset_keys
from cvjobs.dataset.changes import Plan
from cvjobs.dataset.parts import Author
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.dataset.snapshot_reader import SnapshotReader
from cvjobs.dataset.update import End, check_command, check_fingerprint, check_source, earlier, update
from cvjobs.images.decode_children import DECODER, DecoderServer
from cvjobs.networks import local_copies
from cvjobs.prediction import dry_run, scheduler
from cvjobs.prediction.context import BatchJob, Context, Resolved
from cvjobs.prediction.dry_run import Forecast
from cvjobs.prediction.ending import LOADING, WAITING, Ending
from cvjobs.prediction.engine.throughput import Pace, overall
from cvjobs.prediction.engine.writer import error_rows
from cvjobs.prediction.placement import Placement
from cvjobs.prediction.report import run_page
from cvjobs.prediction.report.run_page import Run
from cvjobs.prediction.report.speed import Speed
from cvjobs.prediction.summary import Summary, exit_code
from cvjobs.prediction.workers import in_process, ray_actors, start
from cvjobs.sources import reasons
from cvjobs.sources.left_out import EXAMPLES, LeftOut
from cvjobs.sources.listing import list_source, nothing_found
from cvjobs.sources.rows import IMAGES, Listing
from cvjobs.storage.storage_options import parse_options
from cvjobs.storage.store import open_store

FIRST_IMAGE = "the first image has a result"


def run(
    options: BatchOptions, job: BatchJob, decoder: str = DECODER, clock: Callable[[], float] | None = None
) -> Summary | Forecast:
    """Run a batch job to its end, or to a limit of time or money, and return what it did.

    ``clock`` tells, for the limits, the seconds since the command began. Raises a CvjobsError with one sentence for
    everything a user can cause; bad images are rows in ``errors/``.
    """
    allowed = spending(options)
    if options.overwrite and options.limit:
        raise WrongUse("--overwrite replaces the results as a whole: leave out --limit, or choose another -o.")
    storage = parse_options(options.storage_option)
    store = open_store(options.out, options=storage)
    contents.check(store, contents.RESULTS)
    base = snapshot.latest(store)
    check_command(store, base, job.command)
    with Progress(job.command) as progress, stoppable() as stop, ExitStack() as stack:
        run = Run(phases=progress.phases)
        allowance = Allowance(allowed, clock or (lambda: progress.phases.seconds))
        if not options.address:
            allowance.machines.alone()
        progress.phase("listing", f"listing {options.source}")
        then = earlier(store, base, overwrite=options.overwrite)
        listing = list_source(
            options.source,
            storage,
            confine=options.confine,
            exclude=options.exclude,
            rules=then.listing_rules,
        )
        if listing.not_carried:
            names = ", ".join(map(shortened, listing.not_carried))
            progress.note(f"the columns {names} of {listing.source} are left out: their names are those of results")
        check_source(store, base, listing)
        if not listing.images.num_rows and not base.wanted:
            raise WrongUse(nothing_found(listing))
        progress.phase(IMPORTING)  # of what the model needs
        # The model of a new output is about to be loaded: the decoders can get ready meanwhile.
        decoder_server = stack.enter_context(closing(DecoderServer()))
        if not base.version and options.workers in (None, 1) and not options.address:
            decoder_server.start()
        placement = _placement(options, allowance, stack)
        with local_copies.reached_with(storage):
            resolved = job.resolve(then.resolved, placement)
        listing = _renamed(listing, resolved)
        context = Context(
            options=options,
            storage=storage,
            job=job,
            resolved=resolved,
            store=store,
            listing=listing,
            fingerprint=digest(resolved.facts),
            schema=_schema(listing, resolved),
            decoder=decoder,
            decoder_server=decoder_server,
            allowance=allowance,
            placement=placement,
        )
        if not options.overwrite:
            check_fingerprint(store, base, context.fingerprint, resolved.facts)
        if not options.address:
            context.team(1)
        if options.dry_run:
            return dry_run.run(context, base, progress)
        allowance.check(FIRST_IMAGE)
        with lock.held(store) as held:
            return _run(context, held, progress, stop, run)


def _placement(options: BatchOptions, allowance: Allowance, stack: ExitStack) -> Placement:
    """Return where the run computes; the stack ends a connection to a cluster."""
    link = stack.enter_context(closing(Link(options.address))) if options.address else None

    def watch() -> None:
        allowance.check(FIRST_IMAGE)

    return Placement(options.device, options.workers, options.gpus_per_worker, link, watch)


def _renamed(listing: Listing, resolved: Resolved) -> Listing:
    """Return the listing with its own columns named as in the output, where each name is there once.

    The versions of the images stay: they are made from the names and values in the list.
    """
    keys, own = IMAGES.names, listing.images.schema.names[len(IMAGES) :]
    names = schema.own_names(own, [*schema.RESERVED, *_results(resolved).names])
    return replace(listing, images=listing.images.rename_columns([*keys, *names]))


def _schema(listing: Listing, resolved: Resolved) -> pa.Schema:
    carried = pa.schema([*listing.images.schema][len(IMAGES) :])
    metadata = {
        "cvjobs.fingerprint": digest(resolved.facts),
        "cvjobs.facts": schema.pack(resolved.facts),
        "cvjobs.licence": schema.pack(resolved.licence.record()),
        "cvjobs.source": listing.source,
        "cvjobs.versions": schema.pack(libraries()),
    }
    return schema.result_schema(carried, _results(resolved)).with_metadata(metadata)


def _results(resolved: Resolved) -> pa.Schema:
    """Return the fields of the results, with the mark of pictures that are cut short where these are used."""
    return resolved.results if resolved.transform.truncated == "fail" else resolved.results.append(schema.TRUNCATED)


def _run(
    context: Context,
    held: lock.Lock,
    progress: Progress,
    stop: Stop,
    run: Run,
) -> Summary:
    store = context.store

    def compute(author: Author, todo: Plan) -> End:
        stop.guarded = True
        run.plan = todo
        error = _compute(context, held, author, run, progress, stop)
        # A run that is stopped while it publishes is complete anyway.
        return End(error, stop.asked, run.spent)

    try:
        base, todo = update(store, held, context.order, compute, progress.phase)
    except CvjobsError as error:
        if run.plan is not None and not isinstance(error, OutputHeld):
            run.status = "stopped" if isinstance(error, (Stopped, LimitSpent)) else "failed"
            run.reason = str(error)
            _leave_page(context, run, progress)
        raise
    if not todo.todo.num_rows and not todo.failures.num_rows:
        progress.note(f"nothing to compute; {verified.words(store)}")
    summary = _summary(context, base, todo, run)
    if summary.spent:
        run.status, run.reason = "stopped", f"{summary.spent} is reached."
    store.write_bytes(schema.SUMMARY, schema.pack(summary.as_dict()))  # a kill may come before the page is made
    if not _leave_page(context, run, progress, base, summary):
        summary = replace(summary, report="")
    summary = summary.at(run.phases.spent(), context.allowance.machines)
    store.write_bytes(schema.SUMMARY, schema.pack(summary.as_dict()))
    return summary


def _leave_page(
    context: Context, run: Run, progress: Progress, base: Snapshot | None = None, summary: Summary | None = None
) -> bool:
    """Write the run's page, and tell whether it was; a run is worth more than that, which is all an error costs."""
    try:
        progress.phase("page", f"writing {schema.REPORT}")
        base = base or snapshot.latest(context.store)
        assert run.plan is not None
        run_page.leave(context, run, base, summary or _summary(context, base, run.plan, run))
        return True
    except Exception as error:  # noqa: BLE001 - see above
        # A full disk ends the run with its own sentence already.
        if run.status == "finished" or not isinstance(error, CvjobsError):
            why = str(limit(error) or f"{type(error).__name__}: {error}").split("\n", 1)[0]
            tell(f"this run has no {schema.REPORT} ({why.rstrip('.')}).")
        return False


def _compute(
    context: Context,
    held: lock.Lock,
    author: Author,
    run: Run,
    progress: Progress,
    stop: Stop,
) -> CvjobsError | None:
    """Commit the rows that are to be computed; an error is returned, so that what is done is folded first."""
    store, todo = context.store, run.plan
    assert todo is not None
    if todo.failures.num_rows:
        failures = [
            Failure("list", code, detail)
            for code, detail in zip(todo.failures["code"].to_pylist(), todo.failures["detail"].to_pylist(), strict=True)
        ]
        parts.commit(store, author, None, error_rows(todo.failures, failures))
    if not todo.todo.num_rows:
        return None
    context.decoder_server.start()  # for the pictures in the report, where no engine of this process needs it
    team = context.team(todo.todo.num_rows)
    run.device = team.device
    run.workers = f"{team.workers:,} of Ray, on this machine" if team.distributed else "this process"
    if team.words:
        progress.note(team.words)
        run.workers = f"{team.workers:,} of Ray, at {context.options.address}"
    spec = context.spec(author, held.epoch, store.place, team)

    def committed() -> pa.Array:
        return dataset_keys.load(
            store, Snapshot(version=0), [p for p in parts.committed(store) if p.run == author.run]
        ).ids

    def uncommitted(table: pa.Table) -> pa.Table:
        done = committed()
        return table.filter(pc.invert(pc.is_in(table["image_id"], value_set=done))) if len(done) else table

    def give_up(table: pa.Table) -> None:
        failure = Failure("worker", "worker_crash", "two workers died when they had only this image", 2)
        parts.commit(store, author, None, error_rows(table.select([f.name for f in schema.KEYS]), [failure]))

    total = todo.todo.num_rows
    shards = scheduler.Shards(todo.todo, team.workers)
    started: in_process.InProcessWorkers | ray_actors.RayWorkers | None = None
    failed: CvjobsError | None = None
    speed = Speed()
    progress.phase(LOADING, f"loading {context.resolved.title}")
    try:
        with start.start_workers(spec, team, context.placement.link, context.decoder_server) as started:
            ending = Ending(context, progress.phases, committed)
            watcher = _Watcher(started, progress, total, speed, ending)

            def stopped() -> bool:
                watcher.look()
                return stop.asked or ending.due()

            whole = scheduler.work(started, shards, uncommitted, give_up, stopped, ending.room)
            run.spent = "" if whole or stop.asked else context.allowance.limit
            watcher.ended()
    except CvjobsError as error:
        # Ctrl-C reaches every process of the group: what fails because of it is no failure.
        failed = None if stop.asked else error
    run.pace = overall(started.paces() if started else [])
    run.rates = speed.rates()
    if run.pace.dark.count:
        progress.note(str(run.pace.dark))
    if run.pace.unpinned:
        progress.note("the system pins no memory for the GPU, so copies to it are slower: raise `ulimit -l`")
    if not run.spent:
        run.picture(context)
        return failed
    run.committed = sum(part.rows for part in parts.committed(store) if part.run == author.run)
    return failed if failed or run.committed else LimitSpent(context.allowance.nothing(FIRST_IMAGE))


class _Watcher:
    """Keeps the progress current while the loop waits: which phase it is, and how far the model is."""

    def __init__(
        self,
        started: in_process.InProcessWorkers | ray_actors.RayWorkers,
        progress: Progress,
        total: int,
        speed: Speed,
        ending: Ending,
    ) -> None:
        self._started, self._progress, self._total, self._speed = started, progress, total, speed
        self._ending = ending

    def look(self) -> None:
        """Show the pace."""
        pace = overall(self._started.paces())
        ready = bool(self._started.ready())
        self._ending.look(self._started, pace)
        if not ready:
            if self._started.waiting:
                number = counted(self._started.waiting, "workers")
                self._progress.phase(WAITING, f"waiting for machines of the cluster for {number}")
            elif self._progress.phases.name == WAITING:
                self._progress.phase(LOADING)
            return
        if self._progress.phases.name in (LOADING, WAITING):
            self._progress.phase("decoding", "decoding the first images")
        if pace.begun:
            self._computing(pace)
        if pace.batches:
            self._speed.sample(pace.answered)
        if pace.answered:
            answered = min(pace.answered, self._total)
            self._progress.update(answered, self._total, pace.failed, pace.rate, pace.left(self._total - answered))

    def ended(self) -> None:
        """Note that every row is durable: what came after the last answer was writing."""
        pace = overall(self._started.paces())
        if pace.begun:
            self._computing(pace)
        if pace.batches:
            self._progress.phase("writing", at=_monotonic(pace.last))

    def _computing(self, pace: Pace) -> None:
        if self._progress.phases.name != "computing":
            self._progress.phase("computing", at=_monotonic(pace.begun))


def _monotonic(stamp: float) -> float:
    """Return the moment of a time in s since 1970 on the monotonic clock."""
    return time.monotonic() - (time.time() - stamp)


def _summary(context: Context, base: Snapshot, todo: Plan, run: Run) -> Summary:
    took = run.phases.spent()
    skipped = sum(context.listing.skipped.values())
    left = base.wanted - base.ok - base.failed
    spent = run.spent if left else ""
    computed = run.committed if spent else todo.todo.num_rows + todo.failures.num_rows
    remaining = left if spent else min(todo.left, left)
    failed = LeftOut()
    for table in SnapshotReader(store=context.store, snapshot=base).errors(["code", "path"]):
        for entry in table["code"].value_counts().to_pylist():
            own = table.filter(pc.equal(table["code"], entry["values"]))["path"]
            failed.extend(entry["values"], entry["counts"], map(path_bytes, own.slice(0, EXAMPLES).to_pylist()))
    return Summary(
        listed=base.wanted + skipped,
        ok=base.ok,
        failed=base.failed,
        skipped=skipped,
        remaining=remaining,
        reused=todo.reused,
        computed=computed,
        seconds=phases.whole(took),
        phases=took,
        images_per_second=rates.rounded(run.pace.rate),
        out=context.store.place,
        version=base.version,
        exit_code=exit_code(
            base.ok,
            base.failed,
            base.wanted - base.ok - base.failed - remaining,
            context.options.max_error_rate,
            spent,
        ),
        spent=spent,
        cost=context.allowance.machines.cost(phases.whole(took)).as_dict(),
        model=context.resolved.title,
        licence=context.resolved.licence.record(),
        failures=dict(failed.counts),
        first_failed=reasons.named(failed.counts, failed.names()),
        skipped_by=context.listing.skipped,
        left_out=reasons.skipped(context.listing),
        new=min(todo.new, computed),
        changed=min(len(todo.outdated), computed),
        gone=todo.gone,
        first_changed=list(todo.first_changed),
        first_gone=list(todo.first_gone),
        blank=run.pace.blank.record(),
        report=f"{context.store.place}/{schema.REPORT}",
        storage=context.storage,
    )
