"""Reading the bytes of listed images ahead of the decoders, within a budget of bytes."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from cvjobs.common.failures import Failure
from cvjobs.common.timing import Stopwatch
from cvjobs.images.decode_worker import Chunk, LostReads
from cvjobs.sources.file_reading import Unreadable
from cvjobs.sources.reader import Source

IMAGES = 64
CHUNK_BYTES = 2 << 20
CHUNK_NAMES = 12 << 10  # characters; a child that hangs must have room for the next message, with six bytes for each
BUDGET = 256 << 20
THREADS = 8

# One image to read: the worker's tag, the path, the listed size in bytes and time stamp in ns.
Request = tuple[Any, str, int, int]


def chunks(requests: list[Request], images: int = IMAGES) -> Iterator[list[Request]]:
    """Cut requests into chunks of at most ``images`` images and 2 MiB, so that big images spread over the decoders."""
    chunk: list[Request] = []
    size = names = 0
    for request in requests:
        full = len(chunk) == images or size + request[2] > CHUNK_BYTES or names + len(request[1]) > CHUNK_NAMES
        if chunk and full:
            yield chunk
            chunk, size, names = [], 0, 0
        chunk.append(request)
        size += request[2]
        names += len(request[1])
    if chunk:
        yield chunk


class Budget:
    """Bytes that may be in flight; a request larger than all of it passes when it is alone."""

    def __init__(self, total: int) -> None:
        self._total, self._free = total, total
        self._open = False
        self._changed = threading.Condition()

    def take(self, count: int) -> int:
        """Wait for room and return how much to give back."""
        count = min(count, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= count or self._open)
            self._free -= count
        return count

    def give(self, count: int) -> None:
        """Give room back."""
        with self._changed:
            self._free += count
            self._changed.notify_all()

    def lift(self) -> None:
        """Let every request pass from now on."""
        with self._changed:
            self._open = True
            self._changed.notify_all()


class Fetcher:
    """Threads that read chunks and hand them to the decoders' queue, in the order they were asked for."""

    def __init__(
        self,
        source: Source,
        decoders: queue.Queue[Chunk | None],
        failed: Callable[[Any, Failure], None],
        broken: Callable[[BaseException], None],
        threads: int = THREADS,
        images: int = IMAGES,
    ) -> None:
        self._source, self._decoders, self._failed, self._broken = source, decoders, failed, broken
        self._images = images
        self._requests: queue.Queue[list[Request] | None] = queue.Queue()
        self._budget = Budget(BUDGET)
        self._stopped = threading.Event()
        self._lost = LostReads()
        self.threads, self.watch = threads, Stopwatch()
        self._threads = [threading.Thread(target=self._run, name="fetch", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def ask(self, requests: list[Request]) -> None:
        """Queue images for reading."""
        for chunk in chunks(requests, self._images):
            self._requests.put(chunk)

    def stop(self) -> None:
        """Drop what was asked for and not begun."""
        self._stopped.set()
        self._budget.lift()

    def close(self, patience: float) -> None:
        """End the threads after ``stop``, waiting at most ``patience`` seconds: a dead share may hold them for ever."""
        for _ in self._threads:
            self._requests.put(None)
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.0))

    def _run(self) -> None:
        while (requests := self._requests.get()) is not None:
            if self._stopped.is_set():
                continue
            try:
                self._fetch(requests)
            except BaseException as error:  # noqa: BLE001 - raised by ``Engine.run``, in the thread that waits
                self._broken(error)
                return

    def _fetch(self, requests: list[Request]) -> None:
        room = self._budget.take(sum(size for _, _, size, _ in requests))
        tags, contents = [], []
        for tag, path, size, modified in requests:
            try:
                with self.watch.running():
                    contents.append(self._source.read(path, size, modified))
                tags.append(tag)
                self._lost.read()
            except Unreadable as error:
                self._lost.failed(error.failure)
                self._failed(tag, error.failure)
        if not tags:
            self._budget.give(room)
            return
        chunk = Chunk(tags, contents, done=lambda: self._budget.give(room))
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._decoders.put(chunk, timeout=0.5)
                return
