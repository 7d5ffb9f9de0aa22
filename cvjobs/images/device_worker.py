"""The worker's side of decoding on a device: one process that decodes what it can, and hands the rest on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
from typing import Any

from cvjobs.common.errors import CvjobsError, JobFailed, WrongUse
from cvjobs.images.decode_children import Child, started
from cvjobs.images.decode_worker import POLL, Batches, Chunk, DecodeWorker, LostReads, Outlet, SentChunk, nothing
from cvjobs.images.ipc import DecodeSettings, receive
from cvjobs.images.measured import Measurements

PROGRAM = "cvjobs.images.device_decoder"  # which imports torch, as nothing here does
LIVES = 3
_START, _FAREWELL = 300.0, 5.0  # s


class DeviceChildren:
    """Starts the process; it decodes to the same pixels as the children of these settings, but for rounding."""

    def __init__(self, settings: DecodeSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._starting: subprocess.Popen[bytes] | None = None
        self._stopped = False

    @property
    def room(self) -> int:
        """See ``Children``."""
        return self._settings.room

    def fork(self) -> Child:
        """Return a new process; raises WrongUse where the device decodes nothing, and JobFailed where it dies."""
        child = started(self._start)
        with contextlib.ExitStack() as undo:
            undo.callback(child.kill)
            child.connection.settimeout(_START)
            try:
                message, _ = receive(child.connection)
            except (EOFError, OSError) as error:
                raise JobFailed("The process that decodes on the GPU died at its start: use --decode cpu.") from error
            finally:
                self._starting = None
            if not message["works"]:
                raise WrongUse("This GPU, or this build of torchvision, decodes no JPEG: use --decode cpu.")
            child.connection.settimeout(None)
            undo.pop_all()
        return child

    def _start(self, descriptors: list[int]) -> int:
        with self._lock:
            if self._stopped:
                raise JobFailed("The process that decodes on the GPU was stopped.")
            self._starting = process = subprocess.Popen(
                [sys.executable, "-P", "-m", PROGRAM, json.dumps(dataclasses.asdict(self._settings))]
                + [str(descriptor) for descriptor in descriptors],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # libraries print warnings about bad images
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
            self._processes.append(process)
        return process.pid

    def stop(self) -> None:
        """Start no more; one that is still starting, for seconds, has decoded nothing and is killed."""
        with self._lock:
            self._stopped = True
            if (process := self._starting) is not None:
                process.kill()

    def close(self) -> None:
        """Wait for the processes, whose sockets are closed; one that hangs is killed."""
        for process in self._processes:
            try:
                process.wait(_FAREWELL)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class DeviceDecodeWorker(DecodeWorker):
    """Feeds the process from the decoders' queue; what is not for it goes into a queue of its own, with its places.

    A chunk at which the process dies or hangs goes there as a whole: of a decode child each image has its own answer.
    After three such chunks, or where no other process starts, all go there.
    """

    def __init__(
        self,
        children: DeviceChildren,
        chunks: queue.Queue[Chunk | None],
        outlet: Outlet | Batches,
        lost: LostReads,
        *,
        batches: Batches,
        elsewhere: queue.Queue[Chunk | None],
    ) -> None:
        super().__init__(children, chunks, outlet, lost, batches=batches)
        self._processes, self._elsewhere, self._lives = children, elsewhere, LIVES

    def stop(self) -> None:
        """See ``DecodeWorker``; a start is not waited for."""
        super().stop()
        self._processes.stop()

    def run(self) -> None:
        """See ``DecodeWorker``; at the end nothing more goes elsewhere.

        The process is there before a chunk has places, or whole batches would wait for its start.
        """
        try:
            self._child = self._processes.fork()
            super().run()
        except BaseException as error:  # noqa: BLE001 - handed on
            if not self._stopped:
                self._outlet.broken(error)
        finally:
            self._hand_on(None)

    def _send(self, chunk: Chunk) -> None:
        if self._lives and self._child is None:
            try:
                self._child = self._processes.fork()
            except (CvjobsError, OSError):
                self._give_up()
        if self._lives:
            super()._send(chunk)
        else:
            self._hand_on(chunk)

    def _deliver(self, sent: SentChunk, message: dict[str, Any], measured: Measurements) -> None:
        others = message.get("elsewhere", [])
        if not others or "limit" in message:
            super()._deliver(sent, message, measured)
            return
        rest = sorted(set(range(len(sent.chunk.tags))) - set(others))
        if rest:
            number = {image: i for i, image in enumerate(rest)}
            failed = [[number[image], *why] for image, *why in message["failed"]]
            part = dataclasses.replace(sent, chunk=sent.chunk.part(rest, nothing))
            super()._deliver(part, {**message, "failed": failed}, measured[rest])
        self._hand_on(sent.chunk.part(others, sent.chunk.done))

    def _lost(self, code: str) -> None:
        del code
        assert self._child is not None
        self._child.kill()
        self._child = None
        chunks = [sent.chunk for sent in self._sent]
        self._sent.clear()
        self._lives -= 1
        if not self._lives:
            self._give_up()
        for chunk in chunks:
            self._hand_on(chunk)

    def _hand_on(self, chunk: Chunk | None) -> None:
        """Put a chunk, or the end, into the other queue; after a stop nobody may take what is there."""
        while True:
            if self._stopped:
                if chunk is not None:
                    chunk.done()
                    return
                with contextlib.suppress(queue.Empty):
                    while (waiting := self._elsewhere.get_nowait()) is not None:
                        waiting.done()
            with contextlib.suppress(queue.Full):
                self._elsewhere.put(chunk, timeout=POLL)
                return

    def _give_up(self) -> None:
        self._lives = 0
        if not self._stopped:
            print(
                "cvjobs: the decoder on the GPU dies again and again: the processor decodes the rest.", file=sys.stderr
            )
