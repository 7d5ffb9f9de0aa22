"""The program of a model's process: loads a network and launches it on pixels in shared memory, until it is closed.

Started as ``python -m cvjobs.prediction.engine.model_server FD``. Each thread of the engine has a lane: a thread here
that answers on a socket of its own. What a network returns goes back as it is; no result is made here.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import threading
from dataclasses import asdict
from typing import Any

import numpy as np

from cvjobs.common.errors import CvjobsError
from cvjobs.images.ipc import Memory, exactly, receive, send
from cvjobs.prediction.engine.lock_meter import LockMeter

ARENA = -1  # where pixels are that lie in no batch's buffer
ANSWER, RAISED, MEMORY, FATAL = "answer", "raised", "memory", "fatal"
AT_ONCE = 2  # launches: one computes while the next is copied
_DESCRIPTORS = 64


def main() -> None:
    """Load the network of the opener that comes first, then serve a lane for each socket."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; the engine decides when to end
        signal.signal(number, signal.SIG_IGN)
    try:
        message, _ = receive(control)
        content = exactly(control, message["length"])
        network, refusal = _loaded(content)
        send(control, {"length": len(refusal)}, payload=refusal)
        if not refusal:
            server = _Server(network)
            with server.meter.looking():
                while True:
                    _, (lane, arena) = receive(control, 2)
                    threading.Thread(target=server.serve, args=(socket.socket(fileno=lane), Memory(arena))).start()
    except (EOFError, OSError):
        pass
    os._exit(0)


def _loaded(content: bytes) -> tuple[Any, bytes]:
    """Return the network, or the error that loading it raised."""
    try:
        return pickle.loads(content).network(), b""  # noqa: S301 - of the engine
    except BaseException as error:  # noqa: BLE001 - raised where the engine waits
        return None, _pickled(error)


def _pickled(error: BaseException) -> bytes:
    """Return an error as bytes; one that does not travel is told."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    try:
        content = pickle.dumps(error)
        pickle.loads(content)  # noqa: S301 - which was just made
    except Exception:  # noqa: BLE001 - whatever a foreign class does
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return content


class _Server:
    """The network and the buffers that batches come in."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._buffers: dict[int, tuple[Memory, Any]] = {}
        self._unpinned = 0
        self._changed = threading.Condition()
        self._turn = threading.Semaphore(AT_ONCE)
        self.meter = LockMeter()

    def serve(self, connection: socket.socket, arena: Memory) -> None:
        """Answer on one lane until it is closed."""
        with connection:
            try:
                while True:
                    message, descriptors = receive(connection, _DESCRIPTORS)
                    content = exactly(connection, message["length"])
                    kind, answer = self._answer(message, content, descriptors, arena)
                    seen = {"lock": asdict(self.meter.seen), "unpinned": self._unpinned}
                    send(connection, {"kind": kind, "length": len(answer), **seen}, payload=answer)
                    if kind == FATAL:
                        os._exit(1)
            except (EOFError, OSError):
                arena.close()

    def _answer(
        self, message: dict[str, Any], content: bytes, descriptors: list[int], arena: Memory
    ) -> tuple[str, bytes]:
        try:
            self._keep(message, descriptors)
            arrays = [self._array(arena, *place) for place in message["arrays"]]
            arguments = pickle.loads(content, buffers=arrays)  # noqa: S301 - of the engine
            with self._turn:
                found = getattr(self._network, message["method"])(*arguments)
            return ANSWER, pickle.dumps(found, protocol=5)
        except MemoryError as error:
            return MEMORY, pickle.dumps(str(error))
        except CvjobsError as error:
            return RAISED, _pickled(error)
        except Exception as error:  # noqa: BLE001 - whatever a network raises is raised where it was called
            if _broken():
                return FATAL, pickle.dumps(f"{type(error).__name__}: {error}".split("\n", 1)[0])
            return RAISED, _pickled(error)

    def _keep(self, message: dict[str, Any], descriptors: list[int]) -> None:
        for number in message["gone"]:
            with self._changed:
                memory, images = self._buffers.pop(number)
            if unpin := getattr(self._network, "unpin", None):
                unpin(images)
            del images
            memory.close()
        for (number, length), descriptor in zip(message["new"], descriptors, strict=True):
            memory = Memory(descriptor)
            images = np.frombuffer(memory.view(length), np.uint8)
            pin = getattr(self._network, "pin", None)
            pinned = pin is None or pin(images)
            with self._changed:
                self._unpinned += not pinned
                self._buffers[number] = memory, images
                self._changed.notify_all()

    def _array(self, arena: Memory, where: int, at: int, length: int) -> memoryview:
        if where == ARENA:
            return arena.view(at + length)[at:]
        with self._changed:  # another lane may be about to bring it
            self._changed.wait_for(lambda: where in self._buffers)
            memory, _ = self._buffers[where]
        return memory.view(at + length)[at:]


def _broken() -> bool:
    """Whether the device answers no more, as after an illegal access: every launch would fail from now on."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except Exception:  # noqa: BLE001 - of several kinds, by version
        return True
    return False


if __name__ == "__main__":
    main()
