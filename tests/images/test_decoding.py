"""Decoders and their children: whatever an image does, it is answered once, and nothing is left behind."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import xxhash
from commands import TESTS

from cvjobs.common.errors import JobFailed
from cvjobs.common.failures import Failure
from cvjobs.images import decode_worker
from cvjobs.images.decode_worker import Children, Chunk, DecodeWorker, Fetched, Measured
from cvjobs.images.ipc import KEPT, Memory
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform

TRANSFORM = Transform(size=(4, 4), fit="exact")
FREE = Transform(fit="native")


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
            images = [Fetched(at + i, content) for i, content in enumerate(contents[at : at + size])]
            self.chunks.put(Chunk(images, self.basket.count))
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


@pytest.fixture(scope="module")
def shared() -> Iterator[Children]:
    children = started("decoders:toy")
    children.fork().close()  # wait for it
    yield children
    process = server(children)
    children.close()
    assert not process.is_running()


@pytest.fixture
def rig(shared: Children, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Rig]]:
    """Return a maker of rigs; afterwards no process and no descriptor of theirs may be left."""
    monkeypatch.setattr(decode_worker, "PATIENCE", 2.0)
    descriptors = psutil.Process().num_fds()
    yield lambda count: Rig(shared, count)
    _, alive = psutil.wait_procs(server(shared).children(), 5)
    assert alive == []
    assert psutil.Process().num_fds() <= descriptors


def numbered(count: int) -> list[bytes]:
    return [b"x" * (1 + i % 200) for i in range(count)]


def check(basket: Basket, contents: list[bytes], bad: dict[int, str]) -> None:
    assert basket.errors == []
    assert {tag: failure.code for tag, failure in basket.bad.items()} == bad
    assert basket.answers == len(contents)
    for tag, content in enumerate(contents):
        if tag not in bad:
            measured, value = basket.good[tag]
            assert (measured.width, value) == (len(content), len(content) % 256)
            assert measured.content_hash == xxhash.xxh3_128_digest(content)


@pytest.mark.slow
def test_every_image_of_many_decoders_is_answered_once(rig: Callable[[int], Rig]) -> None:
    contents = numbered(500)
    basket = rig(2).decode(contents)
    check(basket, contents, {})
    assert basket.done == 32


def test_the_shared_memory_grows_with_the_images(rig: Callable[[int], Rig]) -> None:
    contents = [b"x", b"y" * 255, b"padding" * 1_000_000, b"z"]
    check(rig(1).decode(contents, size=1), contents, {})


@pytest.mark.parametrize("at", [0, 7, 15, 16, 39])
def test_an_image_that_kills_its_decoder_fails_alone(rig: Callable[[int], Rig], at: int) -> None:
    contents = numbered(40)
    contents[at] = b"POISON"
    basket = rig(1).decode(contents)
    check(basket, contents, {at: "decode_crash"})
    assert basket.bad[at].attempts == 2
    assert basket.done == 3


def test_a_chunk_of_nothing_but_poison_is_answered(rig: Callable[[int], Rig]) -> None:
    contents = [b"POISON"] * 5 + [b"good"]
    basket = rig(1).decode(contents, size=3)
    check(basket, contents, dict.fromkeys(range(5), "decode_crash"))
    assert basket.done == 2


@pytest.mark.slow
def test_an_image_that_hangs_its_decoder_fails_alone(rig: Callable[[int], Rig]) -> None:
    contents = numbered(20)
    contents[3] = b"HANG"
    basket = rig(1).decode(contents)
    check(basket, contents, {3: "decode_timeout"})
    assert basket.bad[3].attempts == 1
    assert basket.done == 2


def test_an_image_that_wants_too_much_memory_fails_alone(rig: Callable[[int], Rig]) -> None:
    contents = numbered(20)
    contents[3] = b"HOG"
    check(rig(1).decode(contents), contents, {3: "decode_memory"})


@pytest.mark.slow
def test_children_killed_from_outside_lose_no_image(rig: Callable[[int], Rig]) -> None:
    contents = [b"SLOW" + content for content in numbered(200)]
    one = rig(2)
    one.start(contents, size=8)
    killed = 0
    while killed < 6 and one.basket.answers < 150:
        one.basket.some.clear()
        assert one.basket.some.wait(30)
        for decoder in one.decoders:
            if (child := decoder._child) is not None:
                os.kill(child.pid, signal.SIGKILL)
                killed += 1
    one.join()
    assert killed >= 2
    assert one.basket.errors == []
    assert one.basket.answers == len(contents)
    assert {failure.code for failure in one.basket.bad.values()} <= {"decode_crash"}
    assert len(one.basket.bad) <= killed // 2
    assert one.basket.done == 25


@pytest.mark.slow
def test_a_child_that_stands_still_is_replaced(rig: Callable[[int], Rig]) -> None:
    contents = numbered(20)
    contents[5] = b"STOP"
    check(rig(1).decode(contents), contents, {5: "decode_timeout"})


@pytest.mark.slow
def test_sigterm_to_the_whole_group_leaves_the_children_working(rig: Callable[[int], Rig], shared: Children) -> None:
    contents = [b"SLOW" + content for content in numbered(100)]
    one = rig(1)
    one.start(contents)
    assert one.basket.some.wait(30)
    server(shared).terminate()
    for child in server(shared).children():
        child.terminate()
    one.join()
    check(one.basket, contents, {})


def test_more_than_a_thousand_descriptors_are_no_obstacle(rig: Callable[[int], Rig]) -> None:
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        contents = numbered(20)
        check(rig(1).decode(contents), contents, {})
    finally:
        for descriptor in held:
            os.close(descriptor)


@pytest.mark.slow
def test_a_server_that_dies_is_replaced_and_at_its_second_death_ends_the_decoder_with_a_sentence() -> None:
    children = started("decoders:toy")
    one = Rig(children, 1)
    one.start([b"SLOW" + content for content in numbered(1000)])
    for _ in range(2):
        one.basket.some.clear()
        assert one.basket.some.wait(60)
        server(children).kill()
    one.join()
    children.close()
    (error,) = one.basket.errors
    assert isinstance(error, JobFailed)
    assert str(error).startswith("The decode processes cannot run")
    assert one.basket.bad == {}


@pytest.mark.slow
def test_nothing_is_lost_where_a_server_is_replaced() -> None:
    children = started("decoders:toy")
    two = Rig(children, 2)
    two.start([b"SLOW" + content for content in numbered(200)])
    assert two.basket.some.wait(60)
    server(children).kill()
    two.join()
    children.close()
    assert (len(two.basket.good), two.basket.answers, two.basket.errors) == (200, 200, [])


@pytest.mark.slow
def test_a_decoder_that_is_not_there_is_a_sentence() -> None:
    children = started("decoders:nothing")
    one = Rig(children, 1)
    one.decode([b"x"])
    children.close()
    (error,) = one.basket.errors
    assert isinstance(error, JobFailed)
    assert "has no attribute 'nothing'" in str(error)


# Images that keep a size of their own


@pytest.mark.slow
@pytest.mark.usefixtures("rig")
def test_images_of_their_own_size_whatever_some_of_them_do(shared: Children) -> None:
    free = Children(FREE, 25_000_000, "decoders:toy", shared._decoder_server)
    for count, size in ((1, 5), (2, 1)):
        contents = [*numbered(40), b"LARGE", b"x" * 300, b"LARGE!", b"y"]
        contents[3], contents[11], contents[17] = b"POISON", b"HANG", b"HOG"
        one = Rig(free, count)
        basket = one.decode(contents, size)
        check(basket, contents, {3: "decode_crash", 11: "decode_timeout", 17: "decode_memory"})
        for tag, shape in basket.shapes.items():
            assert shape == ((5000, 5000, 3) if b"LARGE" in contents[tag] else (1, len(contents[tag]), 3))


@pytest.mark.usefixtures("rig")
def test_an_image_that_is_resized_to_too_many_pixels_fails_alone(shared: Children) -> None:
    one = Rig(Children(FREE, 100, "decoders:toy", shared._decoder_server), 1)
    contents = numbered(150)
    basket = one.decode(contents)
    check(basket, contents, dict.fromkeys(range(100, 150), "too_many_pixels"))
    assert basket.bad[100].detail == "resized to 101 x 1 it has more than 100 pixels (--max-pixels)"


@pytest.mark.slow
def test_memory_that_a_large_image_took_is_given_back() -> None:
    ours = Memory()
    theirs = Memory(os.dup(ours.descriptor))
    ours.extend(1 << 40)  # costs nothing
    for length in (100, KEPT + 1, 200):
        ours.view(10)[:5] = b"first"
        theirs.view(length)[length - 4 :] = b"last"
        assert bytes(ours.view(length)[length - 4 :]) == b"last"
        theirs.unmap()
        ours.empty()
        assert os.fstat(ours.descriptor).st_blocks * 512 < 1 << 20
    ours.close()
    theirs.close()
