"""Decoders and their children: whatever an image does, it is answered once, and nothing is left behind."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import xxhash
from decode_rig import Basket, Rig, server, started

from cvjobs.common.errors import JobFailed
from cvjobs.common.paths import path_text
from cvjobs.images import decode_worker
from cvjobs.images.decode_children import Children
from cvjobs.images.decode_worker import Chunk
from cvjobs.images.fetch import chunks
from cvjobs.images.file_reader import File
from cvjobs.images.ipc import KEPT, Buffer, Memory
from cvjobs.images.transform import Transform

pytestmark = pytest.mark.slow

FREE = Transform(fit="native")


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
                with suppress(ProcessLookupError):  # it may just have ended
                    os.kill(child.pid, signal.SIGKILL)
                    killed += 1
    one.join()
    assert killed >= 2
    assert one.basket.errors == []
    assert one.basket.answers == len(contents)
    assert {failure.code for failure in one.basket.bad.values()} <= {"decode_crash"}
    assert len(one.basket.bad) <= killed // 2
    assert one.basket.done == 25


def test_a_child_that_stands_still_is_replaced(rig: Callable[[int], Rig]) -> None:
    contents = numbered(20)
    contents[5] = b"STOP"
    check(rig(1).decode(contents), contents, {5: "decode_timeout"})


def test_sigterm_to_the_whole_group_leaves_the_children_working(rig: Callable[[int], Rig], shared: Children) -> None:
    contents = [b"SLOW" + content for content in numbered(100)]
    one = rig(1)
    one.start(contents)
    assert one.basket.some.wait(30)
    server(shared).terminate()
    for child in server(shared).children():
        with suppress(psutil.NoSuchProcess):
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


@pytest.mark.faults(minutes=0.2)
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


def test_nothing_is_lost_where_a_server_is_replaced() -> None:
    children = started("decoders:toy")
    two = Rig(children, 2)
    two.start([b"SLOW" + content for content in numbered(200)])
    assert two.basket.some.wait(60)
    server(children).kill()
    two.join()
    children.close()
    assert (len(two.basket.good), two.basket.answers, two.basket.errors) == (200, 200, [])


def test_a_decoder_that_is_not_there_is_a_sentence() -> None:
    children = started("decoders:nothing")
    one = Rig(children, 1)
    one.decode([b"x"])
    children.close()
    (error,) = one.basket.errors
    assert isinstance(error, JobFailed)
    assert "has no attribute 'nothing'" in str(error)


# Files that the children read


def file(path: Path, content: bytes) -> File:
    path.write_bytes(content)
    return str(path), len(content), path.stat().st_mtime_ns


def lost(path: Path) -> File:
    """A file that cannot be read, as one on a share that is gone."""
    path.symlink_to(path)
    return str(path), 5, 0


def test_files_are_read_whatever_some_of_them_are(rig: Callable[[int], Rig], tmp_path: Path) -> None:
    names = ["a\nb", "a\\b", "\\x41", "\udcff", "é" * 100, "a:b", " ", *map(str, range(40))]
    contents = numbered(len(names))
    files = []
    for name, content in zip(names, contents, strict=True):
        _, size, modified = file(tmp_path / name, content)
        files.append((path_text(os.fsencode(tmp_path / name)), size, modified))
    bad = {10: "read_vanished", 20: "changed_during_run", 21: "changed_during_run", 30: "empty_file", 46: "read_io"}
    (tmp_path / names[10]).unlink()
    (tmp_path / names[20]).write_bytes(b"longer than before")
    files[21] = (*files[21][:2], files[21][2] + 1)
    files[30] = file(tmp_path / names[30], b"")
    (tmp_path / names[46]).unlink()
    files[46] = lost(tmp_path / names[46])
    check(rig(2).read(files), contents, bad)


@pytest.mark.parametrize("size", [1, 7, 16])
def test_a_share_that_is_gone_ends_the_run(
    rig: Callable[[int], Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(decode_worker, "LOST", 40)
    basket = rig(1).read([lost(tmp_path / str(number)) for number in range(64)], size)
    (error,) = basket.errors
    assert isinstance(error, JobFailed)
    assert str(error).startswith("40 images in a row could not be read (Too many levels of symbolic links)")


@pytest.mark.parametrize("size", [1, 7, 16])
def test_a_file_that_can_be_read_is_a_sign_of_life(
    rig: Callable[[int], Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(decode_worker, "LOST", 30)
    files = [lost(tmp_path / str(number)) for number in range(64)]
    for number in (20, 45):
        (tmp_path / str(number)).unlink()
        files[number] = file(tmp_path / str(number), b"x")
    basket = rig(1).read(files, size)
    assert (basket.errors, basket.answers) == ([], 64)


def test_an_image_that_hangs_is_found_whatever_the_names_of_the_next_ones_are(
    rig: Callable[[int], Rig], tmp_path: Path
) -> None:
    folder = tmp_path / "/".join(["\x01" * 250] * 14)
    folder.mkdir(parents=True)
    contents = numbered(150)
    contents[0] = b"HANG"
    files = [file(folder / str(number), content) for number, content in enumerate(contents)]
    requests = [(number, *one) for number, one in enumerate(files)]
    one = rig(1)
    for some in chunks(requests):
        one.chunks.put(Chunk([tag for tag, *_ in some], files=[files[tag] for tag, *_ in some]))
    basket = one.read([])
    check(basket, contents, {0: "decode_timeout"})


# Images that keep a size of their own


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


def test_a_buffer_for_which_there_is_no_descriptor_is_an_error_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            Buffer(1, (1, 1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    gc.collect()
    assert told == []
