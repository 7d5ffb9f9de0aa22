"""How much the interpreter's lock was held while an engine worked, measured beside threads that hold it or do not."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cvjobs.dataset import schema
from cvjobs.dataset.parts import Author
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform
from cvjobs.networks import registry
from cvjobs.prediction.engine import lock_meter
from cvjobs.prediction.engine.engine import Engine, EngineSpec
from cvjobs.prediction.engine.lock_meter import LockMeter
from cvjobs.prediction.engine.task import Columns
from cvjobs.prediction.engine.throughput import Span
from cvjobs.sources.listing import list_source

pytestmark = pytest.mark.slow

LOOKS = 25
CONTENT = np.random.default_rng(0).bytes(1 << 20)
MATRIX = np.random.default_rng(0).random((400, 400))


def spin() -> None:
    total = 0
    for number in range(20_000):
        total += number


def looked(work: Callable[[], object]) -> float:
    """Return the share that a meter sees beside a thread that works."""
    ended, meter = threading.Event(), LockMeter(every=0.01)

    def again() -> None:
        while not ended.is_set():
            work()

    thread = threading.Thread(target=again)
    thread.start()
    try:
        with meter.looking():
            until = time.monotonic() + 60
            while meter.seen.looks < LOOKS and time.monotonic() < until:
                time.sleep(0.05)
    finally:
        ended.set()
        thread.join()
    assert meter.seen.share is not None
    return meter.seen.share


def test_a_thread_that_runs_python_holds_the_lock() -> None:
    assert looked(spin) > 0.7


@pytest.mark.parametrize(
    "work",
    [lambda: time.sleep(0.05), lambda: MATRIX @ MATRIX, lambda: zlib.compress(CONTENT)],
    ids=["sleep", "numpy", "zlib"],
)
def test_a_thread_that_sleeps_or_computes_elsewhere_does_not(work: Callable[[], object]) -> None:
    assert looked(work) < 0.3


def test_where_the_kernel_counts_no_waits_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_meter, "_COUNTED", "/proc/no/such/file")
    meter = LockMeter(every=0.001)
    with meter.looking():
        time.sleep(0.05)
    assert meter.seen.share is None


def test_a_span_looks_while_something_runs_and_forgets_what_went_into_getting_ready() -> None:
    span = Span()
    with span.running():
        until = time.monotonic() + 60
        while not span.lock.looks and time.monotonic() < until:
            time.sleep(0.01)
        assert span.lock.looks
        span.restart()
        assert span.lock.looks == 0
    seen = span.lock
    assert not [thread for thread in threading.enumerate() if thread.name in ("lock-meter", "gpu-meter")]
    with span.running(), span.running():
        while span.lock.looks < 2 and time.monotonic() < until:
            time.sleep(0.01)
    assert span.lock.looks > seen.looks


@dataclass(frozen=True)
class Slow:
    """A model that takes 0.2 s a batch and does not hold the lock."""

    transform: Transform
    results: pa.Schema

    def open(self) -> Slow:
        return self

    def __call__(self, pixels: Pixels) -> Columns:
        time.sleep(0.2)
        return Columns([pa.array([0] * len(pixels), pa.int64())])


def test_the_pace_of_an_engine_has_what_was_seen_while_it_worked(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(6):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    listing = list_source(str(tmp_path / "images"))
    results = pa.schema([("value", pa.int64())])
    spec = EngineSpec(
        out=str(tmp_path / "out"),
        storage={},
        author=Author(run=schema.new_run(0), epoch=0, fingerprint="", listed=0),
        epoch=0,
        root=listing.root,
        base=listing.base,
        schema=schema.result_schema(pa.schema([]), results),
        opener=Slow(registry.embedder("thumbnail/8", weights="pretrained", layer="").transform, results),
        device="cpu",
        cpus=1,
        batch_size=1,
    )
    engine = Engine(spec)
    try:
        engine.run(listing.images)
        pace = engine.pace
    finally:
        engine.close()
    assert pace.lock.looks > 0
    assert pace.gpu.busy is None
