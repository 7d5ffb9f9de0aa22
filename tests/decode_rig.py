"""Decoders with toy children, outside of any engine: what they are given, and what they deliver."""

from __future__ import annotations

import queue
import threading
from typing import Any

import psutil
import pytest
from commands import TESTS

from cvjobs.common.failures import Failure
from cvjobs.images.decode_children import Children
from cvjobs.images.decode_worker import Chunk, DecodeWorker
from cvjobs.images.file_reader import File
from cvjobs.images.measured import Measured
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform

TRANSFORM = Transform(size=(4, 4), fit="exact")


class Basket:
    """Takes what decoders deliver."""

    def __init__(self) -> None:
        self.good: dict[Any, tuple[Measured, int]] = {}
        self.shapes: dict[Any, tuple[int, ...]] = {}
        self.bad: dict[Any, Failure] = {}
        self.errors: list[BaseException] = []
        self.answers = 0
        self.done = 0
        self.some = threading.Event()

    def decoded(self, tag: Any, measured: Measured, pixels: Pixels) -> None:
        assert (pixels == pixels[0, 0, 0]).all()
        self.good[tag] = (measured, int(pixels[0, 0, 0]))
        self.shapes[tag] = pixels.shape
        self.answers += 1
        self.some.set()

    def failed(self, tag: Any, failure: Failure) -> None:
        self.bad[tag] = failure
        self.answers += 1

    def broken(self, error: BaseException) -> None:
        self.errors.append(error)
        self.some.set()

    def count(self) -> None:
        self.done += 1


class Rig:
    """A few decoders and a queue of chunks."""

    def __init__(self, children: Children, count: int) -> None:
        self.basket = Basket()
        self.chunks: queue.Queue[Chunk | None] = queue.Queue()
        self.decoders = [DecodeWorker(children, self.chunks, self.basket) for _ in range(count)]

    def decode(self, contents: list[bytes], size: int = 16) -> Basket:
        self.start(contents, size)
        self.join()
        return self.basket

    def start(self, contents: list[bytes], size: int = 16) -> None:
        for at in range(0, len(contents), size):
            some = contents[at : at + size]
            self.chunks.put(Chunk(range(at, at + len(some)), some, done=self.basket.count))
        self._begin()

    def read(self, files: list[File], size: int = 16) -> Basket:
        for at in range(0, len(files), size):
            some = files[at : at + size]
            self.chunks.put(Chunk(range(at, at + len(some)), files=some, done=self.basket.count))
        self._begin()
        self.join()
        return self.basket

    def _begin(self) -> None:
        for decoder in self.decoders:
            self.chunks.put(None)
            decoder.start()

    def join(self) -> None:
        for decoder in self.decoders:
            decoder.join(60)
            assert not decoder.is_alive()


def started(decoder: str, transform: Transform = TRANSFORM, max_pixels: int = 1000) -> Children:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TESTS))
        return Children(transform, max_pixels, decoder)


def server(children: Children) -> psutil.Process:
    """The process that forks children."""
    assert children._decoder_server._server is not None
    return psutil.Process(children._decoder_server._server.process.pid)
