"""The decode children of a worker: the process that forks them, and what the worker holds of each."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from functools import partial

from cvjobs.common import control_groups, devices
from cvjobs.common.errors import JobFailed, LimitReached
from cvjobs.images.decode import MAX_SIDE
from cvjobs.images.ipc import Buffer, DecodeProgress, DecodeSettings, Memory
from cvjobs.images.server_process import SHELF, ServerProcess
from cvjobs.images.transform import Transform

DECODER = "cvjobs.images.decode:decode"
_LITTLE = 5  # times what it needs: enough for the command beside it
_LAST = 2.0  # s until the memory of a child that was killed is nobody's


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
                    return started(partial(server.fork, dataclasses.asdict(settings)))
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


def started(start: Callable[[list[int]], int]) -> Child:
    """Return the child that ``start`` makes of a socket and memories, given as descriptors; it returns the pid."""
    with contextlib.ExitStack() as undo:
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        with theirs:
            memories = []
            for _ in range(3):
                memories.append(Memory())
                undo.callback(memories[-1].close)
            pid = start([theirs.fileno(), *(memory.descriptor for memory in memories)])
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
        root: str = "",
    ) -> None:
        self._decoder_server = decoder_server or DecoderServer(keep=False)
        self._ours = decoder_server is None
        self._decoder_server.start()
        most = min(max_pixels, MAX_SIDE**2)  # nothing larger is decoded whatever the option allows
        record = transform.record()
        self.settings = DecodeSettings(decoder=decoder, transform=record, max_pixels=most, root=root)

    @property
    def room(self) -> int:
        """The bytes that the pixels of one image may take."""
        return self.settings.room

    def fork(self) -> Child:
        """Return a new child; raises as ``DecoderServer.fork``."""
        return self._decoder_server.fork(self.settings)

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
        self.buffers: dict[int, Buffer] = {}  # that it has
        self._memories = memories

    def answered(self, seconds: float) -> bool:
        """Wait for an answer, or the end of the child."""
        poll = select.poll()  # select() knows no descriptors over 1023
        poll.register(self.connection, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def kill(self) -> None:
        """End a child that hangs, and give its memory back; one that is gone has no pid any more.

        Its places in a batch are another's from now on: it is waited for until its socket ends.
        """
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.connection.settimeout(_LAST)
        until = time.monotonic() + _LAST
        with contextlib.suppress(OSError):
            while self.connection.recv(1 << 16) and time.monotonic() < until:
                pass
        self.close()

    def close(self) -> None:
        """End the child after what it is doing."""
        self.connection.close()
        for memory in self._memories:
            memory.close()
