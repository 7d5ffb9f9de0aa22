"""Listed images on their way to pixels: threads that read, a queue, and decoders with a decode child each.

The one place that wires them. An outlet takes the pixels, in the decoders' own threads and in no order.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cvjobs.common import control_groups
from cvjobs.images.decode_worker import DECODER, Children, Chunk, DecoderServer, DecodeWorker, Outlet
from cvjobs.images.fetch import IMAGES, Fetcher
from cvjobs.images.transform import Transform
from cvjobs.sources.reader import Source

PATIENCE = 2.0
CHILD_BYTES = 30_000_000  # a child with its two blocks of pixels, and what is read for it


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How images are decoded: the pixels that are wanted, and how many a source image may have."""

    transform: Transform
    max_pixels: int
    decoder: str = DECODER


@dataclass(frozen=True, kw_only=True)
class LoaderWork:
    """What a loader did: seconds of its readers and decoders, and the processor seconds of the decoders."""

    reading: float
    decoding: float
    cpu: float


def decoders(most: int) -> int:
    """Return how many of so many decode processes a quarter of what a control group leaves suffices for, at least 1."""
    held = control_groups.memory_left()
    return most if held is None else min(most, max(held[1] // 4 // CHILD_BYTES, 1))


class Loader:
    """Reads and decodes listed images and hands every one, pixels or failure, to an outlet.

    At most 256 MiB of read images wait for a decoder, in a queue of two chunks a decoder. A chunk holds at most
    ``together`` images; without a size in the transform each travels alone, for it may be as large as they get.
    """

    def __init__(
        self,
        source: Source,
        how: Decoding,
        outlet: Outlet,
        decoders: int,
        decoder_server: DecoderServer | None = None,
        together: int = IMAGES,
    ) -> None:
        self._children = Children(how.transform, how.max_pixels, how.decoder, decoder_server)
        self._chunks: queue.Queue[Chunk | None] = queue.Queue(2 * decoders)
        self._decoders = [DecodeWorker(self._children, self._chunks, outlet) for _ in range(decoders)]
        images = 1 if how.transform.size is None else together
        self._fetcher = Fetcher(source, self._chunks, outlet.failed, outlet.broken, source.threads, images)
        self._ended = False
        for decoder in self._decoders:
            decoder.start()

    @property
    def readers(self) -> int:
        """How many threads read."""
        return self._fetcher.threads

    @property
    def decoders(self) -> int:
        """How many processes decode."""
        return len(self._decoders)

    @property
    def work(self) -> LoaderWork:
        """What was done so far."""
        return LoaderWork(
            reading=self._fetcher.watch.seconds,
            decoding=sum(decoder.seconds for decoder in self._decoders),
            cpu=sum(decoder.cpu for decoder in self._decoders),
        )

    def ask(self, rows: pa.Table, tags: Iterable[Any]) -> None:
        """Queue key rows (path, bytes, modified), in their order; the outlet knows each image by its tag."""
        stamps = rows["modified"].cast(pa.int64()).to_pylist()
        columns = rows["path"].to_pylist(), rows["bytes"].to_pylist(), stamps
        self._fetcher.ask(list(zip(tags, *columns, strict=True)))

    def stop(self) -> None:
        """Drop what no decoder has begun; its images get no answer."""
        self._fetcher.stop()
        with contextlib.suppress(queue.Empty):
            while chunk := self._chunks.get_nowait():
                chunk.done()

    def end(self, patience: float = PATIENCE) -> None:
        """Stop and end the threads, waiting at most ``patience`` seconds for the readers, and for the decoders.

        A reader whose share is dead, and a decoder whose child hangs, are left behind: they end with this process.
        """
        if self._ended:
            return
        self._ended = True
        self.stop()
        self._fetcher.close(patience)
        self.stop()  # drops what a reader put there meanwhile
        self._release()
        until = time.monotonic() + patience
        for decoder in self._decoders:
            decoder.join(max(until - time.monotonic(), 0.0))

    def _release(self) -> None:
        """Put the end for each decoder into the queue, in the place of what a reader that is left behind put there."""
        decoders = len(self._decoders)
        while decoders:
            try:
                self._chunks.put_nowait(None)
                decoders -= 1
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    if (chunk := self._chunks.get_nowait()) is None:
                        decoders += 1
                    else:
                        chunk.done()

    def close(self, patience: float = PATIENCE) -> None:
        """End the threads and a decoder server of our own."""
        self.end(patience)
        self._children.close()


class Arrivals:
    """What an outlet shares with the thread that waits for its images: a condition, and the first error."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.changed = threading.Condition()

    def broken(self, error: BaseException) -> None:
        """See ``decode_worker.Outlet``."""
        with self.changed:
            self.error = self.error or error
            self.changed.notify_all()

    def wait(self, enough: Callable[[], bool], seconds: float) -> bool:
        """Wait until there is ``enough``, an error came or the time is over; return whether there is enough."""
        with self.changed:
            self.changed.wait_for(lambda: self.error is not None or enough(), seconds)
            return enough()
