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
from cvjobs.images.decode_children import DECODER, Children, DecoderServer
from cvjobs.images.decode_worker import Batches, Chunk, DecodeWorker, LostReads, Outlet
from cvjobs.images.device_worker import DeviceChildren, DeviceDecodeWorker
from cvjobs.images.fetch import IMAGES, Fetcher, chunks
from cvjobs.images.transform import Transform
from cvjobs.sources.reader import LocalSource, Source

PATIENCE = 2.0
PIXEL_BYTES = 16 << 20  # of the images of a chunk, which a child holds until the last is decoded
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


def _in_memory(images: int, size: tuple[int, int]) -> int:
    """Return how many of so many images of a size a child may hold at once."""
    return max(min(images, PIXEL_BYTES // (3 * size[0] * size[1])), 1)


class Loader:
    """Reads and decodes listed images and hands every one, pixels or failure, to an outlet.

    The children read files themselves, unless somebody has to say of each whether it may be read; at most 256 MiB of
    other images wait for a decoder, in a queue of two chunks a decoder. A chunk holds at most ``together`` images;
    where the transform bounds no size each travels alone, for it may be as large as they get. With ``batches``, which
    need a size, children put pixels there, and the outlet hears of failures alone.
    """

    def __init__(
        self,
        source: Source,
        how: Decoding,
        outlet: Outlet | Batches,
        decoders: int,
        decoder_server: DecoderServer | None = None,
        together: int = IMAGES,
        *,
        batches: Batches | None = None,
    ) -> None:
        self._files = source if isinstance(source, LocalSource) and source.open_to_all else None
        root = self._files.root if self._files else ""
        self._children = Children(how.transform, how.max_pixels, how.decoder, decoder_server, root)
        self._chunks: queue.Queue[Chunk | None] = queue.Queue(0 if self._files else 2 * decoders)
        lost = LostReads()
        self._decoders = [
            DecodeWorker(self._children, self._chunks, outlet, lost, batches=batches) for _ in range(decoders)
        ]
        self._takers = decoders
        self._device: DeviceChildren | None = None
        if how.transform.decoder == "gpu" and batches is not None:
            self._takers += 1
            self._decoders += self._on_device(outlet, lost, batches)
        most = how.transform.most
        self._together = 1 if most is None else _in_memory(together, most)
        self._fetcher = None
        if self._files is None:
            self._fetcher = Fetcher(source, self._chunks, outlet.failed, outlet.broken, source.threads, self._together)
        self._ended = self._stopped = self._released = False
        self._ending = threading.Lock()
        for decoder in self._decoders:
            decoder.start()

    def _on_device(self, outlet: Outlet | Batches, lost: LostReads, batches: Batches) -> list[DecodeWorker]:
        """Return a decoder on a device, and one for what is not for it, which has its places and waits for none."""
        self._device = children = DeviceChildren(self._children.settings)
        elsewhere: queue.Queue[Chunk | None] = queue.Queue(2)
        device = DeviceDecodeWorker(children, self._chunks, outlet, lost, batches=batches, elsewhere=elsewhere)
        return [device, DecodeWorker(self._children, elsewhere, outlet, lost, batches=batches)]

    @property
    def readers(self) -> int:
        """How many threads, or decode processes, read."""
        return self._fetcher.threads if self._fetcher else len(self._decoders)

    @property
    def decoders(self) -> int:
        """How many processes decode."""
        return len(self._decoders)

    @property
    def work(self) -> LoaderWork:
        """What was done so far."""
        reading = sum(decoder.reading for decoder in self._decoders)
        return LoaderWork(
            reading=self._fetcher.watch.seconds if self._fetcher else reading,
            decoding=sum(decoder.seconds for decoder in self._decoders) - reading,
            cpu=sum(decoder.cpu for decoder in self._decoders),
        )

    def ask(self, rows: pa.Table, tags: Iterable[Any]) -> None:
        """Queue key rows (path, bytes, modified), in their order; the outlet knows each image by its tag."""
        paths, sizes = rows["path"].to_pylist(), rows["bytes"].to_pylist()
        stamps = rows["modified"].cast(pa.int64()).to_pylist()
        requests = list(zip(tags, paths, sizes, stamps, strict=True))
        if self._fetcher is not None:
            self._fetcher.ask(requests)
            return
        for chunk in chunks(requests, self._together):
            self._chunks.put(Chunk([tag for tag, *_ in chunk], files=[(path, size, at) for _, path, size, at in chunk]))
        if self._stopped:
            self._drop()

    def stop(self) -> None:
        """Drop what no decoder has begun; its images get no answer."""
        self._stopped = True
        if self._fetcher is not None:
            self._fetcher.stop()
        for decoder in self._decoders:
            decoder.stop()
        self._drop()

    def _drop(self) -> None:
        with self._ending, contextlib.suppress(queue.Empty):
            while not self._released and (chunk := self._chunks.get_nowait()):
                chunk.done()

    def end(self, patience: float = PATIENCE) -> None:
        """Stop and end the threads, waiting at most ``patience`` seconds for the readers, and for the decoders.

        A reader whose share is dead, and a decoder whose child hangs, are left behind: they end with this process.
        """
        if self._ended:
            return
        self._ended = True
        self.stop()
        if self._fetcher is not None:
            self._fetcher.close(patience)
        self._drop()  # what a reader put there meanwhile
        self._release()
        until = time.monotonic() + patience
        for decoder in self._decoders:
            decoder.join(max(until - time.monotonic(), 0.0))

    def _release(self) -> None:
        """Put the end for each decoder into the queue, in the place of what a reader that is left behind put there."""
        ends = self._takers
        with self._ending:
            self._released = True  # the ends are the decoders', and no chunks to drop
            while ends:
                try:
                    self._chunks.put_nowait(None)
                    ends -= 1
                except queue.Full:
                    with contextlib.suppress(queue.Empty):
                        if (chunk := self._chunks.get_nowait()) is None:
                            ends += 1
                        else:
                            chunk.done()

    def close(self, patience: float = PATIENCE) -> None:
        """End the threads and a decoder server of our own."""
        self.end(patience)
        self._children.close()
        if self._device is not None:
            self._device.close()


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
