"""The engine: threads and queues between fetching, decoding, the model and writing."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from cvjobs.common import devices, malloc
from cvjobs.common.errors import OutputHeld, Stopped
from cvjobs.common.failures import Failure
from cvjobs.common.timing import Stopwatch
from cvjobs.dataset import lock
from cvjobs.dataset.parts import Author
from cvjobs.images.blank_images import LOOKS, BlankImages, ContentCounter, Seen
from cvjobs.images.decode_children import DECODER, DecoderServer
from cvjobs.images.decode_worker import Chunk, Places
from cvjobs.images.loader import Decoding, Loader
from cvjobs.images.measured import Measured, Measurements, content_hashes, together
from cvjobs.images.picture import Pixels
from cvjobs.prediction.engine import headroom
from cvjobs.prediction.engine.batching import Batch, Batcher, BatchSize
from cvjobs.prediction.engine.headroom import Headroom
from cvjobs.prediction.engine.inference import Inference, useless
from cvjobs.prediction.engine.lock_meter import LockUse
from cvjobs.prediction.engine.model_process import ModelProcess
from cvjobs.prediction.engine.shape_buckets import Bins
from cvjobs.prediction.engine.task import Columns, Opener, PictureStep, Separable, Step
from cvjobs.prediction.engine.throughput import Pace, Span
from cvjobs.prediction.engine.writer import Shard, Writer
from cvjobs.sources.reader import open_source
from cvjobs.storage.storage_options import Options
from cvjobs.storage.store import open_store

CPU_BATCHES = (8, 64)
GPU_BATCHES = (32, 1024)
CPU_PIXELS = (1 << 19, 1 << 21)
GPU_PIXELS = (2 << 20, 8 << 20)  # a Faster R-CNN takes 460 bytes a pixel in float32, twice at once
LANES = 3  # of a GPU: two are with it, of one the results are made
HOPELESS = 8

Tag = tuple[Shard, int]  # an image: the row of a shard


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """Everything a worker needs to build an engine; small and picklable.

    ``root`` and ``base`` say where paths are read from, and ``confine`` whether only from below;
    ``storage`` are the options of object stores, ``schema`` is that of the results with its metadata,
    ``batch_size`` 0 finds it by trial, ``cpus`` is how many cores the engine may keep busy. ``apart``: the network is
    in a process of its own.
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
    apart: bool = False


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
        self._contents = ContentCounter(_name)
        self._begun = False
        self._inference = Stopwatch()
        self._alone = 0  # images that the model failed on in a batch of one, which does not say whose fault it is
        gpu = spec.device != "cpu"
        source = open_source(spec.root, spec.base, spec.storage, spec.confine)
        how = Decoding(transform=spec.opener.transform, max_pixels=spec.max_pixels, decoder=spec.decoder)
        wanted = Headroom(
            decoders=max(spec.cpus - 1, 1) if gpu else spec.cpus,
            models=LANES if gpu else min(spec.cpus, 4),
            batch=spec.batch_size,
            batches=GPU_BATCHES if gpu else CPU_BATCHES,
        )
        # Decoders get ready while the model is loaded, their number is known once it is.
        self._own_server = None if decoder_server else DecoderServer(keep=False)
        server = decoder_server or self._own_server
        assert server is not None
        self._process: ModelProcess | None = None
        self._heap = ExitStack()
        try:
            server.start()
            step = self._opened()
            room, less = (wanted, "") if gpu else headroom.within_limit(wanted, step, devices.cpus() // spec.cpus)
        except BaseException:
            self._close_processes()
            raise
        if less:
            print(f"cvjobs: {less}.", file=sys.stderr, flush=True)
        elif not gpu:
            self._heap.enter_context(malloc.kept())
        models = room.models
        self._span = Span(spec.device)
        self._intra_op(1 if gpu else max(spec.cpus // models, 1))
        store = open_store(spec.out, spec.author.run, spec.storage)

        def check() -> None:
            if lock.newest(store) > spec.epoch:
                raise OutputHeld(lock.taken_over(spec.out))

        self._writer = Writer(store, spec.author, spec.schema, check, self.broken)
        self._infers = Inference(step, spec.opener.results)
        self._collector = _collector(step, room, spec)
        batches = self if isinstance(self._collector, Batcher) else None
        with self._lock:  # a decoder that is broken at once waits for it
            self._loader = Loader(source, how, self, room.decoders, server, batches=batches)
        self._models = [threading.Thread(target=self._infer, name="model", daemon=True) for _ in range(models)]
        self._pace.lanes = models
        for thread in self._models:
            thread.start()

    def _opened(self) -> Step | PictureStep:
        """Load the model, here or in a process of its own."""
        if not self._spec.apart:
            return self._spec.opener.open()
        opener = self._spec.opener
        assert isinstance(opener, Separable)
        self._process = ModelProcess(opener)
        step = opener.around(self._process)
        self._process.wait()
        return step

    def _close_processes(self) -> None:
        self._heap.close()
        if self._process is not None:
            self._process.close()
        if self._own_server is not None:
            self._own_server.close()

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
                commit=self._writer.longest,
                gpu=self._span.gpu,
                lock=self._lock_use(),
                unpinned=self._process.unpinned if self._process is not None else 0,
                blank=self._blank(),
            )

    def _lock_use(self) -> LockUse:
        """Return how often the interpreter's lock was held, in the process where that was more often."""
        here, apart = self._span.lock, self._process.lock if self._process is not None else LockUse()
        return max(here, apart, key=lambda use: use.share or 0.0)

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
            self._collector.ready.put(None)
        for thread in self._models:
            thread.join()
        self._collector.close()
        self._writer.close()
        self._loader.close()
        self._close_processes()
        if self._error is not None:  # whoever keeps it does not keep the batches that it came from
            traceback.clear_frames(self._error.__traceback__)

    def decoded(self, tag: Tag, measured: Measured, pixels: Pixels) -> None:
        """Take a picture from a decoder; see ``decode_worker.Outlet``."""
        assert isinstance(self._collector, Bins)
        self._note([tag], together([measured]))
        if self._error is None and not self._stopped:
            self._collector.put(tag, measured, pixels)
        self._arrived(1, ready=True)

    def reserve(self, count: int, wait: bool) -> Places | None:
        """Return places in a batch; see ``decode_worker.Batches``."""
        assert isinstance(self._collector, Batcher)
        return self._collector.reserve(count, wait)

    def filled(self, chunk: Chunk, measured: Measurements, failures: Mapping[int, Failure]) -> None:
        """Take the answers about images that have places; see ``decode_worker.Batches``."""
        assert isinstance(self._collector, Batcher)
        assert chunk.places is not None
        tags = chunk.tags
        if failures:
            good = [image for image in range(len(tags)) if image not in failures]
            self._note([tags[image] for image in good], measured[good])
            for image, failure in failures.items():
                self._fail(tags[image], failure)
        else:
            self._note(tags, measured)
        self._collector.filled(chunk.places, tags, measured, failures.keys())
        unread = sum(failure.stage == "read" for failure in failures.values())
        self._arrived(len(tags), ready=unread < len(tags))

    def _note(self, tags: Sequence[Tag], measured: Measurements) -> None:
        """Count what a person may want to know of the images, whatever a model makes of them."""
        with self._lock:
            pace = self._pace
            pace.blank.images += len(tags)
            for image in np.flatnonzero(measured["unsaid_bits"]).tolist():
                pace.dark.add(int(measured["unsaid_bits"][image]), _name(tags[image]))
            for image in np.flatnonzero(measured["look"]).tolist():
                look = LOOKS[measured["look"][image]]
                pace.blank.looks.setdefault(look, Seen()).add(1, _name(tags[image]))
            self._contents.add(content_hashes(measured), tags)

    def failed(self, tag: Tag, failure: Failure) -> None:
        """Take an image that could not be read or decoded; see ``decode_worker.Outlet``."""
        self._fail(tag, failure)
        self._arrived(1, ready=failure.stage == "decode")

    def broken(self, error: BaseException) -> None:
        """Take the error that ends this engine; every ``run`` raises the first one."""
        with self._lock:
            self._error = self._error or error
        self._halt()

    def _halt(self) -> None:
        """Let no thread wait for what will not come: drop what is not decoded, wake the shards."""
        self._loader.stop()
        self._collector.stop()
        self._writer.wake()

    def _arrived(self, count: int, ready: bool) -> None:
        """Count images that left the decoders; after the last one no batch can grow any more.

        ``ready``: the decoders stand; what was before the first such image is no work.
        """
        with self._lock:
            first = ready and not self._begun
            self._begun = self._begun or ready
            self._upstream -= count
            last = self._upstream == 0
        if first:
            self._span.restart()
        if last:
            self._collector.flush()

    def _fail(self, tag: Tag, failure: Failure) -> None:
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
        while (batch := self._collector.ready.get()) is not None:
            try:
                if self._error is None and not self._stopped:
                    self._compute(batch)
            except BaseException as error:  # noqa: BLE001 - raised by ``run``, in the thread that waits
                self.broken(error)
            self._collector.release(batch)

    def _compute(self, batch: Batch[Any]) -> None:
        with self._lock:
            self._pace.begun = self._pace.begun or time.time()
        began = time.monotonic()
        with self._inference.running():
            pieces = self._infers(batch.images[: len(batch.tags)], batch.size)
        took = time.monotonic() - began
        measured = np.concatenate(batch.measured)
        for start, columns in pieces:
            length = len(columns.arrays[0])
            self._deliver(batch.tags, measured, start, length, columns)
        batch.timed(took)
        if len(pieces) == len(batch.tags) == 1 and (failure := pieces[0][1].failures.get(0)):
            self._alone += failure.code == "infer_error"
            if self._alone >= HOPELESS and self._pace.answered == self._pace.failed:
                raise useless(failure.detail)

    def _deliver(self, tags: Sequence[Tag], measured: Measurements, start: int, count: int, columns: Columns) -> None:
        """Hand rows to the writer, shard by shard (a batch may hold rows of several)."""
        tags, measured, arrays = tags[start : start + count], measured[start : start + count], columns.arrays
        for i, failure in columns.failures.items():
            self._fail(tags[i], failure)
        if len(columns.failures) < count:
            self._answered(count - len(columns.failures), 0)
        for shard in dict.fromkeys(shard for shard, _ in tags):
            taken = [i for i, tag in enumerate(tags) if tag[0] is shard and i not in columns.failures]
            own = [tags[i][1] for i in taken]
            if len(taken) == count:
                self._writer.results(shard, own, measured, arrays)
            elif taken:
                self._writer.results(shard, own, measured[taken], [array.take(pa.array(taken)) for array in arrays])


def _collector(step: Step | PictureStep, room: Headroom, spec: EngineSpec) -> Batcher | Bins:
    gpu = spec.device != "cpu"
    if isinstance(step, PictureStep):
        return Bins(step, room.batch, GPU_PIXELS if gpu else CPU_PIXELS, room.models)
    size, shape = BatchSize(room.batch, *room.batches), spec.opener.transform.stored
    assert shape is not None
    return Batcher(size, shape, room.models + 2)


def _name(tag: Tag) -> str:
    shard, row = tag
    name: str = shard.table["path"][row].as_py()
    return name
