"""The engine: threads and queues between fetching, decoding, the model and writing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from cvjobs.common import devices
from cvjobs.common.errors import CvjobsError, JobFailed, OutputHeld, Stopped
from cvjobs.common.failures import Failure
from cvjobs.common.timing import Stopwatch
from cvjobs.dataset import lock
from cvjobs.dataset.parts import Author
from cvjobs.images.blank_images import LOOKS, BlankImages, ContentCounter, Seen
from cvjobs.images.decode_worker import DECODER, DecoderServer, Measured
from cvjobs.images.loader import Decoding, Loader
from cvjobs.images.picture import Pixels
from cvjobs.prediction.engine import headroom
from cvjobs.prediction.engine.batching import Batch, Batcher, BatchSize, Collector
from cvjobs.prediction.engine.headroom import Headroom
from cvjobs.prediction.engine.shape_buckets import Bins
from cvjobs.prediction.engine.task import Columns, Opener, PictureStep
from cvjobs.prediction.engine.throughput import Pace, Span
from cvjobs.prediction.engine.writer import Shard, Writer
from cvjobs.sources.reader import open_source
from cvjobs.storage.storage_options import Options
from cvjobs.storage.store import open_store

CPU_BATCHES = (8, 64)
GPU_BATCHES = (32, 1024)
CPU_PIXELS = (1 << 19, 1 << 19)
GPU_PIXELS = (4 << 20, 256 << 20)
HOPELESS = 8


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """Everything a worker needs to build an engine; small and picklable.

    ``root`` and ``base`` say where paths are read from, and ``confine`` whether only from below;
    ``storage`` are the options of object stores, ``schema`` is that of the results with its metadata,
    ``batch_size`` 0 finds it by trial, ``cpus`` is how many cores the engine may keep busy.
    """

    out: str
    storage: Options = field(repr=False)
    author: Author
    epoch: int
    root: str
    base: str
    schema: pa.Schema
    opener: Opener
    device: str
    cpus: int
    batch_size: int = 0
    max_pixels: int = 80_000_000
    decoder: str = DECODER
    confine: bool = False


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """The ledger row of one shard: how many images it had."""

    images: int


class Engine:
    """Runs shards from any number of threads at once; two at a time keep it full."""

    def __init__(self, spec: EngineSpec, decoder_server: DecoderServer | None = None) -> None:
        self._spec = spec
        self._error: BaseException | None = None
        self._stopped = False
        self._lock = threading.Lock()
        self._upstream = 0
        self._pace = Pace()
        self._contents = ContentCounter()
        self._span = Span()
        self._begun = False
        self._inference = Stopwatch()
        self._alone = 0  # images that the model failed on in a batch of one, which does not say whose fault it is
        gpu = spec.device != "cpu"
        source = open_source(spec.root, spec.base, spec.storage, spec.confine)
        how = Decoding(transform=spec.opener.transform, max_pixels=spec.max_pixels, decoder=spec.decoder)
        wanted = Headroom(
            decoders=max(spec.cpus - 1, 1) if gpu else spec.cpus,
            models=2 if gpu else min(spec.cpus, 4),
            batch=spec.batch_size,
            batches=GPU_BATCHES if gpu else CPU_BATCHES,
        )
        # Decoders get ready while the model is loaded, their number is known once it is.
        self._own_server = None if decoder_server else DecoderServer(keep=False)
        server = decoder_server or self._own_server
        assert server is not None
        try:
            server.start()
            step = spec.opener.open()
            room, less = (wanted, "") if gpu else headroom.within_limit(wanted, step, devices.cpus() // spec.cpus)
        except BaseException:
            if self._own_server is not None:
                self._own_server.close()
            raise
        if less:
            print(f"cvjobs: {less}.", file=sys.stderr, flush=True)
        self._loader = Loader(source, how, self, room.decoders, server)
        models = room.models
        self._intra_op(1 if gpu else max(spec.cpus // models, 1))
        store = open_store(spec.out, spec.author.run, spec.storage)

        def check() -> None:
            if lock.newest(store) > spec.epoch:
                raise OutputHeld(lock.taken_over(spec.out))

        self._writer = Writer(store, spec.author, spec.schema, check, self.broken)
        self._step: Callable[[Any], Columns] = step
        self._batcher: Collector
        if isinstance(step, PictureStep):
            self._batcher = Bins(step, room.batch, GPU_PIXELS if gpu else CPU_PIXELS, models)
        else:
            size = BatchSize(room.batch, *room.batches)
            self._batcher = Batcher(size, step.batch, models + 2)
        self._models = [threading.Thread(target=self._infer, name="model", daemon=True) for _ in range(models)]
        self._pace.lanes = models
        for thread in self._models:
            thread.start()

    @staticmethod
    def _intra_op(threads: int) -> None:
        """Give each model thread its share of the cores, where torch is in use at all."""
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)

    def run(self, table: pa.Table) -> ShardResult:
        """Compute key rows and return when every one is durable; raises JobFailed, OutputHeld or Stopped."""
        shard = Shard(table)
        with self._lock:
            self._upstream += table.num_rows
        with self._span.running():
            self._loader.ask(table, ((shard, row) for row in range(table.num_rows)))
            self._writer.wait(shard, lambda: self._error is not None or self._stopped)
        if self._error is not None:
            raise self._error
        if not shard.complete:
            raise Stopped("Stopped.")
        return ShardResult(images=table.num_rows)

    @property
    def pace(self) -> Pace:
        """How fast this engine is, and where its time went so far."""
        seconds, cpu = self._span.now()
        loader, work = self._loader, self._loader.work
        threads = {"read": loader.readers, "decode": loader.decoders, "model": len(self._models), "write": 1}
        with self._lock:
            return replace(
                self._pace,
                busy={
                    "read": work.reading,
                    "decode": work.decoding,
                    "model": self._inference.seconds,
                    "write": self._writer.watch.seconds,
                },
                room={step: seconds * count for step, count in threads.items()},
                cpu=cpu + work.cpu,
                decoding=work.cpu,
                cores=seconds * self._spec.cpus,
                blank=self._blank(),
            )

    def _blank(self) -> BlankImages:
        found = BlankImages()
        found.merge(self._pace.blank)
        found.contents = self._contents.most()
        return found

    def stop(self) -> None:
        """Drop what is in flight; rows that have an answer are committed by ``close``."""
        self._stopped = True
        self._halt()

    def close(self) -> None:
        """Stop, commit answered rows and end all threads and processes."""
        self.stop()
        self._loader.end()
        for _ in self._models:
            self._batcher.ready.put(None)
        for thread in self._models:
            thread.join()
        self._writer.close()
        self._loader.close()
        if self._own_server is not None:
            self._own_server.close()

    def decoded(self, tag: tuple[Shard, int], measured: Measured, pixels: Pixels) -> None:
        """Take an image from a decoder; see ``decode_worker.Outlet``."""
        self._note(measured, tag[0].table["path"][tag[1]].as_py())
        if self._error is None and not self._stopped:
            self._batcher.put(tag, measured, pixels)
        self._arrived(ready=True)

    def _note(self, measured: Measured, name: str) -> None:
        """Count what a person may want to know of the images, whatever a model makes of them."""
        with self._lock:
            pace = self._pace
            if measured.unsaid_bits:
                pace.dark.add(measured.unsaid_bits, name)
            pace.blank.images += 1
            if measured.look:
                pace.blank.looks.setdefault(LOOKS[measured.look], Seen()).add(1, name)
            self._contents.add(measured.content_hash, name)

    def failed(self, tag: tuple[Shard, int], failure: Failure) -> None:
        """Take an image that could not be read or decoded; see ``decode_worker.Outlet``."""
        self._fail(tag, failure)
        self._arrived(ready=failure.stage == "decode")

    def broken(self, error: BaseException) -> None:
        """Take the error that ends this engine; every ``run`` raises the first one."""
        with self._lock:
            self._error = self._error or error
        self._halt()

    def _halt(self) -> None:
        """Let no thread wait for what will not come: drop what is not decoded, wake the shards."""
        self._loader.stop()
        self._writer.wake()

    def _arrived(self, ready: bool) -> None:
        """Count an image that left the decoders; after the last one no batch can grow any more.

        ``ready``: the decoders stand; what was before the first such image is no work.
        """
        with self._lock:
            first = ready and not self._begun
            self._begun = self._begun or ready
            self._upstream -= 1
            last = self._upstream == 0
        if first:
            self._span.restart()
        if last:
            self._batcher.flush()

    def _fail(self, tag: tuple[Shard, int], failure: Failure) -> None:
        self._answered(1, 1)
        self._writer.failure(*tag, failure)

    def _answered(self, count: int, failed: int) -> None:
        now = time.time()
        with self._lock:
            pace = self._pace
            pace.answered += count
            pace.failed += failed
            if failed == 0:
                pace.last = now
                pace.batches += 1
                if pace.batches <= pace.lanes:
                    pace.first = now
                    pace.first_count += count

    def _infer(self) -> None:
        while (batch := self._batcher.ready.get()) is not None:
            try:
                if self._error is None and not self._stopped:
                    self._compute(batch)
            except BaseException as error:  # noqa: BLE001 - raised by ``run``, in the thread that waits
                self.broken(error)
            self._batcher.release(batch)

    def _compute(self, batch: Batch[Any]) -> None:
        with self._lock:
            self._pace.begun = self._pace.begun or time.time()
        began = time.monotonic()
        with self._inference.running():
            pieces = self._columns(batch.images[: len(batch.tags)], 0, batch.size)
        took = time.monotonic() - began
        for start, columns in pieces:
            length = len(columns.arrays[0])
            self._deliver(batch, start, length, columns)
        batch.timed(took)
        if len(pieces) == len(batch.tags) == 1 and (failure := pieces[0][1].failures.get(0)):
            self._alone += failure.code == "infer_error"
            if self._alone >= HOPELESS and self._pace.answered == self._pace.failed:
                raise _useless(failure.detail)

    def _columns(self, images: Any, start: int, size: BatchSize) -> list[tuple[int, Columns]]:
        """Run the step; a batch that is too large for memory, or that fails, goes in smaller pieces."""
        count = len(images)
        try:
            return [(start, self._step(images))]
        except CvjobsError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a model raises, one image is to blame or the job
            code = "oom" if isinstance(error, MemoryError) else "infer_error"
            detail = f"{type(error).__name__}: {error}".split("\n", 1)[0][:500]
        # Tried again out here, because the traceback of the first error would keep its memory.
        if count == 1:
            return [(start, self._refused(code, detail))]
        if code == "oom":
            size.too_large(count)
            half = count // 2
            return self._columns(images[:half], start, size) + self._columns(images[half:], start + half, size)
        pieces = [piece for i in range(count) for piece in self._columns(images[i : i + 1], start + i, size)]
        if all(columns.failures for _, columns in pieces):
            raise _useless(detail)
        return pieces

    def _refused(self, code: str, detail: str) -> Columns:
        arrays = [pa.nulls(1, f.type) for f in self._spec.opener.results]
        return Columns(arrays, {0: Failure("infer", code, detail)})

    def _deliver(self, batch: Batch[Any], start: int, count: int, columns: Columns) -> None:
        """Hand rows to the writer, shard by shard (a batch may hold rows of several)."""
        rows: dict[Shard, tuple[list[int], list[int]]] = {}
        for i in range(count):
            shard, row = batch.tags[start + i]
            if i in columns.failures:
                self._fail((shard, row), columns.failures[i])
                continue
            taken, own = rows.setdefault(shard, ([], []))
            taken.append(i)
            own.append(row)
        good = count - len(columns.failures)
        if good:
            self._answered(good, 0)
        for shard, (taken, own) in rows.items():
            whole = len(taken) == count
            arrays = columns.arrays if whole else [a.take(pa.array(taken)) for a in columns.arrays]
            self._writer.results(shard, own, [batch.measured[start + i] for i in taken], arrays)


def _useless(detail: str) -> JobFailed:
    return JobFailed(f"The model fails on every image ({detail}): try another --model or device.")
