"""``--dry-run``: what a run would do, how long it would take and how large it would get; writes nothing."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cvjobs.common import rates
from cvjobs.common.formatting import counted, duration, size
from cvjobs.common.progress import Progress
from cvjobs.common.tabular import Readable
from cvjobs.dataset import parts, schema
from cvjobs.dataset.keys import rows_at
from cvjobs.dataset.parts import Author
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.dataset.update import compare, subtract, unfolded
from cvjobs.prediction import scheduler
from cvjobs.prediction.context import Context
from cvjobs.prediction.workers import start
from cvjobs.sources import reasons
from cvjobs.sources.left_out import NamedCount, told
from cvjobs.storage.store import open_store

SAMPLE = 128  # images that are computed to predict the rest, where that takes no longer than twice ENOUGH
MOST = 1 << 15  # images of a sample where so few take no second
PROBE = 4  # images for each worker that show how long that takes
ENOUGH = 10.0  # s


@dataclass(frozen=True, kw_only=True)
class Forecast(Readable):
    """What a run would do: images to compute, the predicted time in s and size in bytes, and what a sample showed.

    ``cost`` is the record of ``machine_hours.Cost`` for that time, ``machines`` its words; ``within`` are the images
    for which a limit of time or money, ``limit``, allows this command time, as many as there are without one.
    """

    listed: int
    todo: int
    reused: int
    skipped: int
    seconds: float
    bytes: int
    images_per_second: float
    sample: int
    sample_failed: int
    workers: int
    out: str
    model: str
    exit_code: int = 0
    machines: str = ""
    machine_hours: float = 0.0
    cost: dict[str, Any] = field(default_factory=dict)
    limit: str = ""
    within: int = 0
    skipped_by: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, NamedCount] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return dict(vars(self))

    def __str__(self) -> str:
        head = f"{self.listed:,} listed: {self.todo:,} to compute, {self.reused:,} up to date, {self.skipped:,} skipped"
        head = "\n".join([head, *told(self.left_out)])
        if not self.todo:
            return f"{head}\nnothing to do, nothing was written"
        free = "" if "://" in self.out else f" ({size(shutil.disk_usage(_existing(self.out)).free)} free)"
        speed = f" at {rates.told(self.images_per_second)}" if self.images_per_second else ""
        return (
            f"{head}\n"
            f"{self.model}: about {duration(self.seconds)} with {self.workers} worker{'s' * (self.workers > 1)}"
            f"{speed}, {size(self.bytes)} in {self.out}{free}\n"
            f"{self.machines}\n"
            f"{self._within}"
            f"from a sample of {counted(self.sample, 'images')}, {self.sample_failed} of them failed; "
            "nothing was written"
        )

    @property
    def _within(self) -> str:
        if not self.limit:
            return ""
        if self.within >= self.todo:
            return f"{self.limit} allows all of it\n"
        many = -(-self.todo // self.within) if self.within else 0
        more = f"; the same command {counted(many, 'times')} does all of it" if many else ""
        return f"{self.limit} allows about {self.within:,} of them a command{more}\n"


def run(context: Context, base: Snapshot, progress: Progress) -> Forecast:
    """List, compare, compute a sample into a folder that is thrown away, and predict the rest.

    With ``--workers`` or a cluster the sample runs there, so it also shows that the cluster can schedule it.
    """
    store, order = context.store, context.order
    progress.phase("comparing")
    _, mine, _ = unfolded(store, order, base)
    state, want = compare(store, order, base, mine)
    todo = subtract(store, order, state, want)
    count = todo.todo.num_rows
    chosen = sorted(np.random.default_rng(0).choice(count, min(count, MOST), replace=False).tolist())
    sample = _try(context, rows_at(todo.todo, np.array(chosen)), progress, count) if chosen else _Sample()
    skipped = sum(context.listing.skipped.values())
    seconds, allowance = count * sample.each, context.allowance
    cost = allowance.machines.going(seconds)
    room = max(allowance.allowed() - sample.around, 0.0)
    return Forecast(
        listed=len(want) + skipped,
        todo=count + todo.failures.num_rows,
        reused=todo.reused,
        skipped=skipped,
        seconds=round(seconds, 2),
        bytes=round(count * sample.bytes / sample.images) if sample.images else 0,
        images_per_second=rates.rounded(sample.rate),
        sample=sample.images,
        sample_failed=sample.failed,
        workers=sample.workers,
        out=store.place,
        model=context.resolved.title,
        machines=str(cost),
        machine_hours=cost.hours,
        cost=cost.as_dict(),
        limit=allowance.limit if allowance.limited else "",
        within=count if room >= seconds else int(room / sample.each),
        skipped_by=context.listing.skipped,
        left_out=reasons.skipped(context.listing),
    )


@dataclass(frozen=True)
class _Sample:
    """How many images of a sample were computed, the size of their parts, and how many failed.

    ``each`` is what one took in s, ``rate`` images a second where the sample was large enough to say that; ``around``
    are the seconds before the first one, and as many for the end. ``workers`` is how many a run has.
    """

    images: int = 0
    each: float = 0.0
    rate: float = 0.0
    bytes: int = 0
    failed: int = 0
    around: float = 0.0
    workers: int = 0


def _try(context: Context, sample: pa.Table, progress: Progress, count: int) -> _Sample:
    """Compute images of a sample of ``count`` into a temporary folder.

    A few tell for how many there is time, then half of those are timed.
    Where that takes no second, as many are timed as should, until they do or the sample ends.
    """
    team = context.team(count)
    workers = team.workers
    if team.words:
        progress.note(team.words)
    author = Author(run=schema.new_run(0), epoch=0, fingerprint=context.fingerprint, listed=0)
    with tempfile.TemporaryDirectory(prefix="cvjobs-") as folder:
        spec = context.spec(author, 0, folder, team)
        progress.phase("loading the model", f"loading {context.resolved.title}")
        with start.start_workers(spec, team, context.placement.link, context.decoder_server) as started:
            while not started.ready():
                started.wait([], scheduler.WAIT)
            context.allowance.check("a sample could be computed")
            started.note(context.allowance.machines)
            progress.phase("computing", "computing a sample")
            timed = probe = min(PROBE * workers, sample.num_rows)
            seconds = _finish(started, sample.slice(0, probe), workers)
            ready, at = context.allowance.clock(), probe
            rest = sample.slice(probe, max(min(int(2 * probe / seconds * ENOUGH), SAMPLE - probe), 0))
            if rest.num_rows:
                half = rest.num_rows // 2
                _finish(started, rest.slice(0, half), workers)
                seconds = _finish(started, rest.slice(half), workers)
                timed, at = rest.num_rows - half, probe + rest.num_rows
            while seconds < rates.LEAST and at < sample.num_rows:
                more = sample.slice(at, int(1.2 * rates.LEAST * timed / seconds) + 1)
                seconds = _finish(started, more, workers)
                timed, at = more.num_rows, at + more.num_rows
        done = parts.committed(open_store(folder))
    return _Sample(
        images=at,
        each=seconds / timed,
        rate=rates.rate(timed, seconds, rates.BATCHES if at > timed else 1),
        bytes=sum(part.results.bytes for part in done if part.results),
        failed=sum(part.errors.rows for part in done if part.errors),
        around=2 * ready,
        workers=workers,
    )


def _finish(started: scheduler.Workers, images: pa.Table, workers: int) -> float:
    """Compute images and return the seconds that took."""
    began = time.monotonic()
    shards = scheduler.Shards(images, workers)
    scheduler.work(started, shards, lambda lost: lost, lambda _: None, lambda: False)
    return time.monotonic() - began


def _existing(path: str) -> Path:
    """Return the nearest folder above a path that exists."""
    place = Path(path)
    return place if place.exists() else _existing(str(place.parent))
