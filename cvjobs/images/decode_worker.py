"""The worker's side of decoding: chunks of fetched images go to children, pixels or failures come back.

One decoder is one thread with one child; two chunks are with the child at any time, so that it never waits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import select
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from cvjobs.common import control_groups, devices
from cvjobs.common.errors import JobFailed, LimitReached
from cvjobs.common.failures import Failure
from cvjobs.images.decode import MAX_SIDE
from cvjobs.images.ipc import DecodeProgress, DecodeSettings, Memory, receive, send
from cvjobs.images.picture import Pixels
from cvjobs.images.server_process import SHELF, ServerProcess
from cvjobs.images.transform import Transform

PATIENCE = 10.0
POLL = 0.5
DECODER = "cvjobs.images.decode:decode"
_DEATHS = 3
_LITTLE = 5  # times what it needs: enough for the command beside it
MOST_FRAMES = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What decoding found out about a source image: upright size in pixels, frames, hash of the content.

    The number of frames is what the file says, from 1 to ``MOST_FRAMES``: a file may claim any number. ``look`` is a
    place in ``blank_images.LOOKS``; the others are as in ``decode.Decoded``.
    """

    width: int
    height: int
    frames: int
    content_hash: bytes
    truncated: bool = False
    unsaid_bits: int = 0
    look: int = 0


@dataclass
class Fetched:
    """One image on its way to a child; ``tag`` is the worker's own name for it."""

    tag: Any
    content: bytes
    attempts: int = 0


@dataclass
class Chunk:
    """Images that travel together; ``done`` is called once, when all of them have an answer."""

    images: list[Fetched]
    done: Callable[[], None] = field(default=lambda: None)


class Outlet(Protocol):
    """Where a decoder delivers; called from decoder threads."""

    def decoded(self, tag: Any, measured: Measured, pixels: Pixels) -> None:
        """Take the pixels, uint8 (height, width, 3); they are only valid during the call."""

    def failed(self, tag: Any, failure: Failure) -> None:
        """Take the reason why an image has no pixels."""

    def broken(self, error: BaseException) -> None:
        """Take the error after which this decoder cannot go on."""


class DecoderServer:
    """The preloaded process that forks decode children; it takes seconds to be ready, so ``start`` it early.

    It starts when first needed at the latest. Several ``Children`` may share it; a process that died after it was
    ready is replaced once. With ``keep``, the process of the last command of this Python is used again.
    """

    def __init__(self, keep: bool = True) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._server: ServerProcess | None = None
        self._replaced = False
        self._closed = False

    def start(self) -> None:
        """Start the process, unless it was started before."""
        with self._lock:
            if not self._closed:
                self._start()

    def _start(self) -> ServerProcess:
        if self._server is None:
            self._server = (SHELF.take() if self._keep else None) or _started()
        return self._server

    def fork(self, settings: DecodeSettings) -> Child:
        """Return a new child; waits for the process to be ready. Raises JobFailed where it cannot start."""
        with self._lock:
            while True:
                if self._closed:
                    raise _cannot_run("they were ended")
                server = self._start()
                try:
                    server.wait()
                    return _fork(server, settings)
                except (EOFError, OSError) as error:
                    if not server.ready or self._replaced or self._closed:
                        if server.starved():
                            raise LimitReached(_STARVED) from error
                        raise _cannot_run(server.last_words() or str(error)) from error
                # The system may have killed the process for memory, which is no image's fault.
                server.end()
                self._server, self._replaced = ServerProcess(), True

    def close(self) -> None:
        """End the process, or keep it for the next command; children end when their sockets close."""
        self._closed = True
        if self._server is None:
            return
        if self._keep and self._lock.acquire(blocking=False):  # or a decoder waits for a child
            self._lock.release()
            SHELF.put(self._server)
        else:
            self._server.end()


def _started() -> ServerProcess:
    """Return a new process; raises WrongUse where a control group has no memory for it.

    Where there is little, it waits until the process is ready: what it takes is then known to those who need the rest.
    """
    need, held = devices.libraries(model=False), control_groups.memory_left()
    devices.check_memory(need, "Decoding images")
    server = ServerProcess()
    if held is not None and held[1] < _LITTLE * need:
        with contextlib.suppress(EOFError, OSError):  # ``fork`` says why it died
            server.wait()
    return server


_STARVED = (
    "Out of memory: the system ended the decode processes, for the control group of this process allows no more: raise "
    "its limit, or end other programs in it, then run the same command again."
)


def _cannot_run(why: str) -> JobFailed:
    return JobFailed(f"The decode processes cannot run ({why}): `cvjobs doctor` looks for the cause.")


def _fork(server: ServerProcess, settings: DecodeSettings) -> Child:
    with contextlib.ExitStack() as undo:
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        with theirs:
            memories = []
            for _ in range(3):
                memories.append(Memory())
                undo.callback(memories[-1].close)
            pid = server.fork(dataclasses.asdict(settings), [theirs.fileno(), *(m.descriptor for m in memories)])
        undo.pop_all()
    return Child(pid, ours, memories)


class Children:
    """Forks decode children that all decode the same way, from a decoder server of its own or one that others share."""

    def __init__(
        self,
        transform: Transform,
        max_pixels: int,
        decoder: str = DECODER,
        decoder_server: DecoderServer | None = None,
    ) -> None:
        self._decoder_server = decoder_server or DecoderServer(keep=False)
        self._ours = decoder_server is None
        self._decoder_server.start()
        most = min(max_pixels, MAX_SIDE**2)  # nothing larger is decoded whatever the option allows
        self._settings = DecodeSettings(decoder=decoder, transform=transform.record(), max_pixels=most)

    @property
    def room(self) -> int:
        """The bytes that the pixels of one image may take."""
        return self._settings.room

    def fork(self) -> Child:
        """Return a new child; raises as ``DecoderServer.fork``."""
        return self._decoder_server.fork(self._settings)

    def close(self) -> None:
        """End a decoder server of our own; children end when their sockets close."""
        if self._ours:
            self._decoder_server.close()


class Child:
    """One decode process: its socket, its progress word and two blocks of shared memory."""

    def __init__(self, pid: int, connection: socket.socket, memories: list[Memory]) -> None:
        self.pid, self.connection = pid, connection
        self.progress = DecodeProgress(memories[0])
        self.blocks = memories[1:]
        self._memories = memories

    def answered(self, seconds: float) -> bool:
        """Wait for an answer, or the end of the child."""
        poll = select.poll()  # select() knows no descriptors over 1023
        poll.register(self.connection, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def kill(self) -> None:
        """End a child that hangs, and give its memory back; one that is gone has no pid any more."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """End the child after what it is doing."""
        self.connection.close()
        for memory in self._memories:
            memory.close()


@dataclass
class _Sent:
    chunk: Chunk
    number: int
    block: int


class DecodeWorker(threading.Thread):
    """Feeds one child from a queue of chunks (None ends it) and delivers to an outlet."""

    def __init__(self, children: Children, chunks: queue.Queue[Chunk | None], outlet: Outlet) -> None:
        super().__init__(name="decode", daemon=True)
        self._children, self._chunks, self._outlet = children, chunks, outlet
        self._sent: deque[_Sent] = deque()
        self._again: deque[Chunk] = deque()
        self._number = 0
        self._deaths = 0
        self._killed = control_groups.killed()
        self._child: Child | None = None
        self.seconds = self.cpu = 0.0  # that the children worked, and processor seconds of that

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

    def _fill(self, open_: bool) -> bool:
        """Keep two chunks with the child; wait for one only where it has none. Returns whether more may come."""
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
            self._send(chunk)
        return open_

    def _send(self, chunk: Chunk) -> None:
        if self._child is None:
            self._child = self._children.fork()
        used = {s.block for s in self._sent}
        block = next(b for b in range(2) if b not in used)
        places, at = [], 0
        for image in chunk.images:
            places.append((at, len(image.content)))
            at += len(image.content)
        # The contents come first; the child puts the pixels behind them, whose sizes it may be the first to know.
        at = -(-at // 64) * 64
        memory = self._child.blocks[block]
        memory.extend(at + len(places) * (-(-self._children.room // 64) * 64))
        view = memory.view(at)
        for image, (start, length) in zip(chunk.images, places, strict=True):
            view[start : start + length] = image.content
        self._number += 1
        self._sent.append(_Sent(chunk, self._number, block))
        message = {"number": self._number, "block": block, "length": at, "images": places}
        # A child that just died is found when its answer is awaited.
        with contextlib.suppress(OSError):
            send(self._child.connection, message)

    def _collect(self) -> None:
        assert self._child is not None
        sent = self._sent[0]
        # Waits are counted, not seconds: after a machine slept, or this process was stopped, no image is to blame.
        seen, waited = self._child.progress.get(), 0.0
        while not self._child.answered(POLL):
            now = self._child.progress.get()
            seen, waited = now, 0.0 if now != seen else waited + POLL
            if waited >= PATIENCE:
                return self._lost("decode_timeout")
        try:
            message, _ = receive(self._child.connection)
        except (EOFError, OSError):
            return self._lost("decode_crash")
        self._sent.popleft()
        self._deaths = 0
        self.seconds += message["seconds"]
        self.cpu += message["cpu"]
        self._deliver(sent, message["answers"])
        return None

    def _deliver(self, sent: _Sent, answers: list[list[Any]]) -> None:
        assert self._child is not None
        memory = self._child.blocks[sent.block]
        for image, answer in zip(sent.chunk.images, answers, strict=True):
            if len(answer) == 2:
                self._outlet.failed(image.tag, Failure("decode", answer[0], answer[1], image.attempts + 1))
                continue
            at, rows, columns, width, height, frames, truncated, unsaid, look, content_hash = answer
            size = 3 * rows * columns
            pixels = np.frombuffer(memory.view(at + size), np.uint8, size, at).reshape(rows, columns, 3)
            measured = Measured(
                width=width,
                height=height,
                frames=min(max(frames, 1), MOST_FRAMES),
                content_hash=bytes.fromhex(content_hash),
                truncated=truncated,
                unsaid_bits=unsaid,
                look=look,
            )
            self._outlet.decoded(image.tag, measured, pixels)
        memory.empty()
        sent.chunk.done()

    def _lost(self, code: str) -> None:
        """Replace a child that died or hangs; the image it was at is the suspect, all others go again."""
        assert self._child is not None
        message, number = self._child.progress.get()
        if code == "decode_timeout":
            self._child.kill()
        else:
            self._child.close()
        self._child = None
        sent, *later = self._sent
        self._sent.clear()
        self._again.extendleft(s.chunk for s in reversed(later))
        if message != sent.number:  # it died before it began: no image is to blame
            self._deaths += 1
            if self._deaths > _DEATHS:
                raise JobFailed("The decode processes die at their start: see `dmesg` for the out-of-memory killer.")
            self._again.appendleft(sent.chunk)
            return
        suspect = sent.chunk.images[number]
        rest = [image for image in sent.chunk.images if image is not suspect]
        suspect.attempts += 1
        if code == "decode_timeout":
            self._outlet.failed(
                suspect.tag, Failure("decode", code, f"decoding took over {PATIENCE:.0f} s", suspect.attempts)
            )
        elif suspect.attempts >= 2:
            detail = "the decode process died on this image twice"
            if control_groups.killed() > self._killed:  # perhaps for what others took
                code, detail = "oom", "the system killed the decode process for memory on this image twice"
            self._outlet.failed(suspect.tag, Failure("decode", code, detail, suspect.attempts))
        else:
            # Alone, so that a second death has only one suspect; the rest's answer completes the chunk.
            remaining = Chunk(rest, sent.chunk.done)
            alone = Chunk([suspect], (lambda: None) if rest else sent.chunk.done)
            self._again.extendleft([remaining, alone] if rest else [alone])
            return
        if rest:
            self._again.appendleft(Chunk(rest, sent.chunk.done))
        else:
            sent.chunk.done()
