"""``--dry-run``: what a run would do, how long it would take and how large it would get; writes nothing."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cvjobs import crews, pool
from cvjobs.context import Context
from cvjobs.dataset import layout, parts
from cvjobs.dataset.parts import Author
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.dataset.update import compare, subtract, unfolded
from cvjobs.storage import open_store

SAMPLE = 128  # images that are computed to predict the rest


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a run would do: images to compute, the predicted time in s and size in bytes, and what a sample showed."""

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

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return dict(vars(self))

    def __str__(self) -> str:
        head = f"{self.listed:,} listed: {self.todo:,} to compute, {self.reused:,} up to date, {self.skipped:,} skipped"
        if not self.todo:
            return f"{head}\nnothing to do, nothing was written"
        free = "" if "://" in self.out else f" ({_size(shutil.disk_usage(_existing(self.out)).free)} free)"
        return (
            f"{head}\n"
            f"{self.model}: about {_duration(self.seconds)} with {self.workers} worker{'s' * (self.workers > 1)} "
            f"at {self.images_per_second:,.0f} img/s, {_size(self.bytes)} in {self.out}{free}\n"
            f"from a sample of {self.sample} images, {self.sample_failed} of them failed; nothing was written"
        )


def run(context: Context, base: Snapshot) -> Forecast:
    """List, compare, compute a sample into a folder that is thrown away, and predict the rest.

    With ``--workers`` or a cluster the sample runs there, so it also shows that the cluster can schedule it.
    """
    store, order = context.store, context.order
    _, mine, _ = unfolded(store, order, base)
    state, want = compare(store, order, base, mine)
    todo = subtract(store, order, state, want)
    count = todo.todo.num_rows
    chosen = sorted(np.random.default_rng(0).choice(count, min(count, SAMPLE), replace=False).tolist())
    workers, _ = context.staff()
    sample = _try(context, todo.todo.take(pa.array(chosen, pa.int64()))) if chosen else _Sample(0.0, 0, 0)
    rate = len(chosen) / sample.seconds if chosen else 0.0
    skipped = sum(context.listing.skipped.values())
    return Forecast(
        listed=len(want) + skipped,
        todo=count + todo.failures.num_rows,
        reused=todo.reused,
        skipped=skipped,
        seconds=round(count / rate, 1) if rate else 0.0,
        bytes=round(count * sample.bytes / len(chosen)) if chosen else 0,
        images_per_second=round(rate, 1),
        sample=len(chosen),
        sample_failed=sample.failed,
        workers=workers,
        out=store.place,
        model=context.resolved.title,
    )


@dataclass(frozen=True)
class _Sample:
    """How long a sample took (s), the size of its parts (bytes) and how many of its images failed."""

    seconds: float
    bytes: int
    failed: int


def _try(context: Context, sample: pa.Table) -> _Sample:
    """Compute a sample into a temporary folder; the first half warms up, the second is timed."""
    workers, distributed = context.staff()
    author = Author(run=layout.new_run(0), epoch=0, fingerprint=context.fingerprint, listed=0)
    with tempfile.TemporaryDirectory(prefix="cvjobs-") as folder:
        spec = context.spec(author, 0, folder, workers)
        with crews.crew(spec, workers, distributed, context.options.address, context.nursery) as crew:
            half = sample.num_rows // 2
            _finish(crew, sample.slice(0, half), workers)
            began = time.monotonic()
            _finish(crew, sample.slice(half), workers)
            seconds = (time.monotonic() - began) * sample.num_rows / (sample.num_rows - half)
        done = parts.committed(open_store(folder))
    return _Sample(
        seconds=seconds,
        bytes=sum(part.results.bytes for part in done if part.results),
        failed=sum(part.errors.rows for part in done if part.errors),
    )


def _finish(crew: pool.Crew, sample: pa.Table, workers: int) -> None:
    shards = pool.Shards(sample, workers)
    for _ in pool.work(crew, shards, lambda lost: lost, lambda _: None, lambda: False):
        continue


def _existing(path: str) -> Path:
    """Return the nearest folder above a path that exists."""
    place = Path(path)
    return place if place.exists() else _existing(str(place.parent))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
