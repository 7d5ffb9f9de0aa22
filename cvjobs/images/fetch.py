"""Reading the bytes of listed images ahead of the decoders, within a budget of bytes."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from cvjobs.common.errors import JobFailed
from cvjobs.common.failures import Failure
from cvjobs.common.timing import Stopwatch
from cvjobs.images.decode_worker import Chunk, Fetched
from cvjobs.sources.reader import Source, Unreadable

IMAGES = 16
CHUNK_BYTES = 8 << 20
BUDGET = 256 << 20
THREADS = 8
LOST = 1000

# One image to read: the worker's tag, the path, the listed size in bytes and time stamp in ns.
Request = tuple[Any, str, int, int]


def chunks(requests: list[Request], images: int = IMAGES) -> Iterator[list[Request]]:
    """Cut requests into chunks of at most ``images`` images and 8 MiB, so that big images spread over the decoders."""
    chunk: list[Request] = []
    size = 0
    for request in requests:
        if chunk and (len(chunk) == images or size + request[2] > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(request)
        size += request[2]
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
        self._in_a_row = 0
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
        images = []
        for tag, path, size, modified in requests:
            try:
                with self.watch.running():
                    content = self._source.read(path, size, modified)
                images.append(Fetched(tag, content))
                self._in_a_row = 0
            except Unreadable as error:
                self._in_a_row = self._in_a_row + 1 if error.failure.code == "read_io" else 0
                if self._in_a_row >= LOST:
                    raise JobFailed(
                        f"{LOST:,} images in a row could not be read ({error}): the source seems to be gone; "
                        "bring it back, then run the same command again to continue."
                    ) from error
                self._failed(tag, error.failure)
        if not images:
            self._budget.give(room)
            return
        chunk = Chunk(images, lambda: self._budget.give(room))
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._decoders.put(chunk, timeout=0.5)
                return
