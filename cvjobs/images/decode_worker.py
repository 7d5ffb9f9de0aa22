"""The worker's side of decoding: chunks of images go to children, pixels or failures come back.

One decoder is one thread with one child; two chunks are with the child at any time, so that it never waits. The child
reads files itself where it may, and puts pixels of one size where the batch is that they belong to: of such images no
byte passes through here.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from cvjobs.common import control_groups
from cvjobs.common.errors import JobFailed, LimitReached
from cvjobs.common.failures import Failure
from cvjobs.images.decode_children import Child
from cvjobs.images.file_reader import File
from cvjobs.images.ipc import READING, Buffer, exactly, receive, send
from cvjobs.images.measured import MEASURED, Measured, Measurements, apart
from cvjobs.images.picture import Pixels

PATIENCE = 10.0
POLL = 0.5
LOST = 1000
_DEATHS = 3


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Places:
    """Where the pixels of a chunk's images go: ``at`` are places in a buffer, ``batch`` is for whom they are."""

    buffer: Buffer
    at: list[int]
    batch: Any


@dataclass(frozen=True, eq=False)
class Chunk:
    """Images that travel together, as bytes that were read (``contents``), or as files that the child reads.

    ``tags`` are the caller's own names for them; ``done`` is called once, when all of them have an answer.
    """

    tags: Sequence[Any]
    contents: Sequence[bytes] = ()
    files: Sequence[File] = ()
    attempts: int = 0
    places: Places | None = None
    done: Callable[[], None] = field(default=nothing)

    def part(self, which: Sequence[int], done: Callable[[], None], attempts: int = 0) -> Chunk:
        """Return a chunk of some of the images."""
        places = self.places
        return Chunk(
            tags=[self.tags[i] for i in which],
            contents=[self.contents[i] for i in which] if self.contents else (),
            files=[self.files[i] for i in which] if self.files else (),
            attempts=attempts,
            places=None if places is None else replace(places, at=[places.at[i] for i in which]),
            done=done,
        )


class Answers(Protocol):
    """What becomes of images without pixels, and of a decoder that cannot go on; called from decoder threads."""

    def failed(self, tag: Any, failure: Failure) -> None:
        """Take the reason why an image has no pixels."""

    def broken(self, error: BaseException) -> None:
        """Take the error after which this decoder cannot go on."""


class Outlet(Answers, Protocol):
    """Where a decoder delivers images one by one."""

    def decoded(self, tag: Any, measured: Measured, pixels: Pixels) -> None:
        """Take the pixels, uint8 (height, width, 3); they are only valid during the call."""


class Batches(Answers, Protocol):
    """Where the pixels of images of one size have their places before they are decoded."""

    def reserve(self, count: int, wait: bool) -> Places | None:
        """Return places for up to so many images; None where there are none now, or, after a wait, never."""

    def filled(self, chunk: Chunk, measured: Measurements, failures: Mapping[int, Failure]) -> None:
        """Take the answers about a chunk with places: pixels that are there, and the reasons why others are not."""


class Forks(Protocol):
    """What starts a child: ``Children``, or what stands for them."""

    @property
    def room(self) -> int:
        """The bytes that the pixels of one image may take."""

    def fork(self) -> Child:
        """Return a new child."""


class LostReads:
    """Counts images that could not be read one after another: so many of them, and the source itself is gone."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def read(self) -> None:
        """Count an image that was read."""
        self._in_a_row = 0

    def failed(self, failure: Failure) -> None:
        """Count one that was not; raises JobFailed after ``LOST`` of them."""
        self._in_a_row = self._in_a_row + 1 if failure.code == "read_io" else 0
        if self._in_a_row >= LOST:
            raise JobFailed(
                f"{LOST:,} images in a row could not be read ({failure.detail}): the source seems to be gone; "
                "bring it back, then run the same command again to continue."
            )


@dataclass
class SentChunk:
    """A chunk that is with a child: the number of its message, and the block of memory that it uses."""

    chunk: Chunk
    number: int
    block: int


class DecodeWorker(threading.Thread):
    """Feeds one child from a queue of chunks (None ends it) and delivers to an outlet, or into batches."""

    def __init__(
        self,
        children: Forks,
        chunks: queue.Queue[Chunk | None],
        outlet: Outlet | Batches,
        lost: LostReads | None = None,
        *,
        batches: Batches | None = None,
    ) -> None:
        super().__init__(name="decode", daemon=True)
        self._children, self._chunks, self._outlet = children, chunks, outlet
        self._batches, self._lost_reads = batches, lost or LostReads()
        self._sent: deque[SentChunk] = deque()
        self._again: deque[Chunk] = deque()
        self._number = 0
        self._deaths = 0
        self._stopped = False
        self._killed = control_groups.killed()
        self._child: Child | None = None
        # Seconds that the child worked, of these those in which it waited for files, and processor seconds.
        self.seconds = self.reading = self.cpu = 0.0

    def stop(self) -> None:
        """Send no more of what was taken from the queue; what is with the child still has an answer."""
        self._stopped = True

    def run(self) -> None:
        """Work until the end of the queue; a failure of the decoder itself is reported, never swallowed."""
        try:
            open_ = True
            while open_ or self._sent or self._again:
                open_ = self._fill(open_)
                if self._sent:
                    self._collect()
        except BaseException as error:  # noqa: BLE001 - handed on
            self._outlet.broken(error)
        finally:
            if self._child is not None:
                self._child.close()
                self._child = None  # the last views of its memory go with it
            self._sent.clear()
            self._drop()

    def _drop(self) -> None:
        """Let go of what would be sent next."""
        while self._again:
            self._again.popleft().done()

    def _fill(self, open_: bool) -> bool:
        """Keep two chunks with the child; wait only where it has none. Returns whether more may come."""
        if self._stopped:
            self._drop()
        while len(self._sent) < 2:
            if self._again:
                chunk: Chunk | None = self._again.popleft()
            elif not open_:
                break
            else:
                try:
                    chunk = self._chunks.get(block=not self._sent)
                except queue.Empty:
                    break
            if chunk is None:
                open_ = False
                continue
            if self._batches is not None and chunk.places is None:
                places = self._batches.reserve(len(chunk.tags), wait=not self._sent)
                if places is None and self._sent:
                    self._again.appendleft(chunk)
                    break
                if places is None:  # it was stopped
                    chunk.done()
                    continue
                chunk = self._placed(chunk, places)
            self._send(chunk)
        return open_

    def _placed(self, chunk: Chunk, places: Places) -> Chunk:
        """Return what of a chunk has a place; the rest is sent next."""
        room, count = len(places.at), len(chunk.tags)
        if room < count:
            self._again.appendleft(chunk.part(range(room, count), chunk.done))
            chunk = chunk.part(range(room), nothing)
        return replace(chunk, places=places)

    def _send(self, chunk: Chunk) -> None:
        if self._child is None:
            self._child = self._children.fork()
        child, places = self._child, chunk.places
        used = {s.block for s in self._sent}
        block = next(b for b in range(2) if b not in used)
        self._number += 1
        self._sent.append(SentChunk(chunk, self._number, block))
        message: dict[str, Any] = {"number": self._number, "block": block, "length": 0}
        if chunk.files:
            message["files"] = chunk.files
        else:
            message["images"], message["length"] = self._put(chunk, child, block)
        descriptors = []
        if places is None:
            # The child puts the pixels behind the contents: their sizes it may be the first to know.
            child.blocks[block].extend(message["length"] + len(chunk.tags) * (-(-self._children.room // 64) * 64))
        else:
            buffer = places.buffer
            message |= {"buffer": buffer.number, "at": places.at}
            if gone := [number for number, held in child.buffers.items() if held.dropped]:
                message["gone"] = gone
                for number in gone:
                    del child.buffers[number]
            if buffer.number not in child.buffers:
                child.buffers[buffer.number] = buffer
                descriptors = [buffer.descriptor]
        # A child that just died is found when its answer is awaited.
        with contextlib.suppress(OSError):
            send(child.connection, message, descriptors)

    def _put(self, chunk: Chunk, child: Child, block: int) -> tuple[list[tuple[int, int]], int]:
        """Copy what was read into a block; return where each image is, and where they end."""
        places, at = [], 0
        for content in chunk.contents:
            places.append((at, len(content)))
            at += len(content)
        at = -(-at // 64) * 64
        memory = child.blocks[block]
        memory.extend(at)
        view = memory.view(at)
        for content, (start, length) in zip(chunk.contents, places, strict=True):
            view[start : start + length] = content
        return places, at

    def _collect(self) -> None:
        assert self._child is not None
        sent = self._sent[0]
        # Waits are counted, not seconds: after a machine slept, or this process was stopped, no image is to blame.
        # Nor is one where a file, or a whole share, does not come.
        seen, waited = self._child.progress.get(), 0.0
        while not self._child.answered(POLL):
            now = self._child.progress.get()
            reads = now[0] == sent.number and now[2] == READING
            seen, waited = now, 0.0 if now != seen or reads else waited + POLL
            if waited >= PATIENCE:
                return self._lost("decode_timeout")
        try:
            message, _ = receive(self._child.connection)
            raw = exactly(self._child.connection, len(sent.chunk.tags) * MEASURED.itemsize)
        except (EOFError, OSError):
            return self._lost("decode_crash")
        self._sent.popleft()
        self._deaths = 0
        self.seconds += message["seconds"]
        self.reading += message["reading"]
        self.cpu += message["cpu"]
        self._deliver(sent, message, np.frombuffer(raw, MEASURED))
        return None

    def _deliver(self, sent: SentChunk, message: dict[str, Any], measured: Measurements) -> None:
        if limit := message.get("limit"):
            raise LimitReached(limit)
        chunk = sent.chunk
        failures = {
            image: Failure(stage, code, detail, attempts + (chunk.attempts if stage == "decode" else 0))
            for image, stage, code, detail, attempts in message["failed"]
        }
        if chunk.files:
            self._count_reads(len(chunk.tags), failures)
        self._answer(chunk, measured, failures, sent.block, message.get("places", {}))
        chunk.done()

    def _count_reads(self, count: int, failures: Mapping[int, Failure]) -> None:
        for image in range(count) if failures else (0,):
            failure = failures.get(image)
            if failure is not None and failure.stage == "read":
                self._lost_reads.failed(failure)
            else:
                self._lost_reads.read()

    def _answer(
        self,
        chunk: Chunk,
        measured: Measurements,
        failures: Mapping[int, Failure],
        block: int = 0,
        places: Mapping[str, list[int]] | None = None,
    ) -> None:
        if chunk.places is not None:
            assert self._batches is not None
            self._batches.filled(chunk, measured, failures)
            return
        outlet: Any = self._outlet
        for image, failure in failures.items():
            outlet.failed(chunk.tags[image], failure)
        if not places:
            return
        assert self._child is not None
        memory, found = self._child.blocks[block], apart(measured)
        for number, (at, rows, columns) in places.items():
            size = 3 * rows * columns
            pixels = np.frombuffer(memory.view(at + size), np.uint8, size, at).reshape(rows, columns, 3)
            outlet.decoded(chunk.tags[int(number)], found[int(number)], pixels)
        memory.empty()

    def _lost(self, code: str) -> None:
        """Replace a child that died or hangs; the image it was at is the suspect, all others go again."""
        assert self._child is not None
        message, number, _ = self._child.progress.get()
        self._child.kill()
        self._child = None
        sent, *later = self._sent
        self._sent.clear()
        self._again.extendleft(s.chunk for s in reversed(later))
        chunk = sent.chunk
        if message != sent.number or number < 0:  # it was at none of its images: none is to blame
            self._deaths += 1
            if self._deaths > _DEATHS:
                raise JobFailed("The decode processes die at their start: see `dmesg` for the out-of-memory killer.")
            self._again.appendleft(chunk)
            return
        rest = [image for image in range(len(chunk.tags)) if image != number]
        attempts = chunk.attempts + 1
        suspect = chunk.part([number], nothing if rest else chunk.done, attempts)
        if rest:
            self._again.appendleft(chunk.part(rest, chunk.done))
        if code == "decode_timeout":
            failure = Failure("decode", code, f"decoding took over {PATIENCE:.0f} s", attempts)
        elif attempts >= 2:
            detail = "the decode process died on this image twice"
            if control_groups.killed() > self._killed:  # perhaps for what others took
                code, detail = "oom", "the system killed the decode process for memory on this image twice"
            failure = Failure("decode", code, detail, attempts)
        else:  # alone, so that a second death has only one suspect; the rest's answer completes the chunk
            self._again.appendleft(suspect)
            return
        self._answer(suspect, np.zeros(1, MEASURED), {0: failure})
        suspect.done()
