"""A model in a process of its own: the side of the engine, which stands for the network there.

The process launches the network and does nothing else, so that no other work holds up a GPU: not the results, which the
step here turns into columns, nor decoding, reading or writing. It is spawned, and where it dies another one is; the
images at whose launch it died once more, alone, are told apart by the engine.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from cvjobs.common import control_groups
from cvjobs.common.errors import JobFailed
from cvjobs.images.ipc import Buffer, Memory, exactly, receive, send
from cvjobs.prediction.engine import model_server
from cvjobs.prediction.engine.lock_meter import LockUse
from cvjobs.prediction.engine.model_server import ANSWER, ARENA, FATAL, MEMORY
from cvjobs.prediction.engine.task import Separable

_DEATHS = 5  # one after another, without an answer between them
_FAREWELL = 10.0  # s
_SHAPES = 4096


class ModelDied(Exception):
    """The process ended during a launch that was the only one; the text says why it ended."""


class _Ended(Exception):
    """The process ended while this launch, and perhaps others, were on their way."""


class ModelProcess:
    """Called like the network of an opener's step, by several threads at once; ``close`` ends the process.

    Raises, when it starts, what ``Separable.network`` raises there; JobFailed where the process dies again and again.
    """

    def __init__(self, opener: Separable) -> None:
        self._opener = opener
        self._lock = threading.Lock()
        self._gate = _Gate()
        self._lanes = threading.local()
        self._deaths = 0
        self._why = ""
        self._running: _Running | None = _Running(opener)
        self.shape = lru_cache(maxsize=_SHAPES)(self._shape)

    def wait(self) -> None:
        """Wait until the network is loaded."""
        assert self._running is not None
        try:
            self._running.wait()
        except _Ended:
            why = self._running.why(None)
            raise JobFailed(
                f"The model's process died while it loaded the model: {why}; try again, or try a smaller --model."
            ) from None

    def __call__(self, *images: Any) -> Any:
        """Return what the network returns; raises what it raises, and ModelDied."""
        return self._ask("__call__", images)

    def _shape(self, height: int, width: int) -> Any:
        """See ``PictureStep.shape``."""
        return self._ask("shape", (height, width))

    @property
    def lock(self) -> LockUse:
        """How often the lock of the process's interpreter was held, since the network was loaded."""
        return LockUse() if (running := self._running) is None else running.lock

    @property
    def unpinned(self) -> int:
        """How many buffers the system refused to pin there, of those that were sent."""
        return 0 if (running := self._running) is None else running.unpinned

    def close(self) -> None:
        """End the process."""
        with self._lock:
            if self._running is not None:
                self._running.end()

    def _ask(self, method: str, arguments: Sequence[Any]) -> Any:
        with contextlib.suppress(_Ended), self._gate.shared():
            return self._once(method, arguments)
        with self._gate.alone():
            try:
                return self._once(method, arguments)
            except _Ended:
                raise ModelDied(f"the model's process died: {self._why}") from None

    def _once(self, method: str, arguments: Sequence[Any]) -> Any:
        running = self._now()
        lane = getattr(self._lanes, "lane", None)
        if lane is None or lane.running is not running:
            lane = self._lanes.lane = _Lane(running)
        try:
            kind, answer = lane.ask(method, arguments)
        except (EOFError, OSError):
            kind, answer = FATAL, None
        if kind == FATAL:
            self._bury(running, answer)
            raise _Ended
        self._deaths = 0
        if kind == MEMORY:
            raise MemoryError(answer)
        if kind == ANSWER:
            return answer
        raise answer

    def _now(self) -> _Running:
        """Return the process, a new one where the last one died."""
        with self._lock:
            while self._running is None:
                running = _Running(self._opener)
                try:
                    running.wait()
                except _Ended:
                    self._died(running, None)
                except BaseException:
                    running.end()
                    raise
                else:
                    self._running = running
            return self._running

    def _bury(self, running: _Running, said: str | None) -> None:
        """Note that a process died, once."""
        with self._lock:
            if self._running is running:
                self._running = None
                self._died(running, said)

    def _died(self, running: _Running, said: str | None) -> None:
        self._why = running.why(said)
        self._deaths += 1
        if self._deaths > _DEATHS:
            raise JobFailed(
                f"The model's process died {self._deaths} times, the last time because {self._why}: try another "
                "--model, a smaller --batch-size or another device."
            )


class _Running:
    """One process: starting it returns before the network is loaded."""

    def __init__(self, opener: Separable) -> None:
        self.control, theirs = socket.socketpair()
        self._killed = control_groups.killed()
        self._ready = False
        self.sent: dict[int, Buffer] = {}
        self.lock, self.unpinned = LockUse(), 0
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", model_server.__name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a library prints is no answer of ours
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        content = pickle.dumps(opener)
        with contextlib.suppress(OSError):  # ``wait`` says why it died
            send(self.control, {"length": len(content)}, payload=content)

    def wait(self) -> None:
        """Wait until the network is loaded; raises what loading it raised, and _Ended."""
        if self._ready:
            return
        try:
            message, _ = receive(self.control)
            content = exactly(self.control, message["length"])
        except (EOFError, OSError) as error:
            raise _Ended from error
        if content:
            raise pickle.loads(content)  # noqa: S301 - of a process of our own
        self._ready = True

    def why(self, said: str | None) -> str:
        """Return why the process ended: what it said, else how."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_FAREWELL)
        self.end()
        code = self._process.returncode
        if said:
            return said
        if code == -signal.SIGKILL and control_groups.killed() > self._killed:
            return "the system killed it, for the memory of its control group ran out"
        if code == -signal.SIGKILL:
            return "it was killed (signal 9); short of memory is the usual reason"
        return f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"

    def end(self) -> None:
        """End the process; one that hangs is killed."""
        self.control.close()
        self.sent.clear()
        if not self._ready:
            self._process.kill()
        try:
            self._process.wait(_FAREWELL)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Lane:
    """What one thread has to do with a process: a socket, and memory for the pixels that are in no ``Buffer``."""

    def __init__(self, running: _Running) -> None:
        self.running = running
        self._connection, theirs = socket.socketpair()
        self._arena = Memory()
        with theirs, contextlib.suppress(OSError):  # a process that died is found when it is asked
            send(running.control, {}, [theirs.fileno(), self._arena.descriptor])

    def __del__(self) -> None:
        """Let go with the thread."""
        self._connection.close()
        self._arena.close()

    def ask(self, method: str, arguments: Sequence[Any]) -> tuple[str, Any]:
        """Return the kind of an answer and the answer; raises EOFError or OSError where the process is gone."""
        loose: list[pickle.PickleBuffer] = []
        content = pickle.dumps(arguments, protocol=5, buffer_callback=loose.append)
        arrays = [np.frombuffer(one.raw(), np.uint8) for one in loose]
        sent, descriptors = self.running.sent, []
        message: dict[str, Any] = {"method": method, "length": len(content), "arrays": [], "new": []}
        gone = [number for number, buffer in list(sent.items()) if buffer.dropped]
        message["gone"] = [number for number in gone if sent.pop(number, None) is not None]  # by one lane alone
        end = 0
        for array in arrays:
            place = Buffer.holding(array)
            if place is None:
                message["arrays"].append((ARENA, end, array.nbytes))
                end += -(-array.nbytes // 64) * 64
                continue
            buffer, at = place
            message["arrays"].append((buffer.number, at, array.nbytes))
            if buffer.number not in sent:
                sent[buffer.number] = buffer
                message["new"].append((buffer.number, buffer.images.nbytes))
                descriptors.append(buffer.descriptor)
        if end:
            self._arena.extend(end)
            room = np.frombuffer(self._arena.view(end), np.uint8)
            for array, (where, at, length) in zip(arrays, message["arrays"], strict=True):
                if where == ARENA:
                    room[at : at + length] = array
        send(self._connection, message, descriptors, content)
        answer, _ = receive(self._connection)
        self._arena.empty()
        content = exactly(self._connection, answer["length"])
        self.running.lock, self.running.unpinned = LockUse(**answer["lock"]), answer["unpinned"]
        return answer["kind"], pickle.loads(content)  # noqa: S301 - of a process of our own


class _Gate:
    """Lets many threads through at once, or one alone."""

    def __init__(self) -> None:
        self._inside, self._waiting = 0, 0
        self._changed = threading.Condition()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Be inside with others; one who wants to be alone goes first."""
        with self._changed:
            self._changed.wait_for(lambda: self._inside >= 0 and not self._waiting)
            self._inside += 1
        yield from self._left(1)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one inside."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: self._inside == 0)
            self._waiting -= 1
            self._inside = -1
        yield from self._left(-1)

    def _left(self, count: int) -> Iterator[None]:
        try:
            yield
        finally:
            with self._changed:
                self._inside -= count
                self._changed.notify_all()
