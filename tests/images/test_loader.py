"""The loader: every listed image is answered once, failures and broken sources too, and it ends while work is left."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from PIL import Image

from cvjobs.common.failures import Failure
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.loader import Arrivals, Decoding, Loader
from cvjobs.images.measured import Measured
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform
from cvjobs.sources.file_reading import Unreadable

pytestmark = pytest.mark.slow

SMALL = Decoding(transform=Transform(size=(4, 4), fit="exact"), max_pixels=1_000_000)
NATIVE = Decoding(transform=Transform(fit="native"), max_pixels=1_000_000)
LONG = 60.0


@pytest.fixture(scope="module")
def decoder_server() -> Iterator[DecoderServer]:
    with closing(DecoderServer()) as shared, pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1]))
        shared.start()
        yield shared


class Folder:
    """Pictures in memory: number N is 8 + N % 5 pixels wide and N % 256 everywhere; some cannot be read."""

    threads = 3

    def __init__(self, unreadable: tuple[int, ...] = (), bad: tuple[int, ...] = (), broken: int = -1) -> None:
        self._unreadable, self._bad, self._broken = unreadable, bad, broken
        self.read_paths: list[str] = []
        self.open = threading.Event()
        self.open.set()

    def read(self, path: str, size: int, modified: int) -> bytes:
        assert (size, modified) == (int(path) + 100, int(path) * 10)
        self.open.wait(LONG)
        self.read_paths.append(path)
        number = int(path)
        if number == self._broken:
            raise ZeroDivisionError("a bug in a source")
        if number in self._unreadable:
            raise Unreadable("read_permission", "Permission denied")
        return b"no image" if number in self._bad else picture(number)


@cache
def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((9, 8 + number % 5, 3), number % 256, np.uint8)).save(file, "PNG")
    return file.getvalue()


def rows(count: int) -> pa.Table:
    for number in range(count):
        picture(number)  # made before, so that reading takes no time
    numbers = range(count)
    return pa.table(
        {
            "path": [str(number) for number in numbers],
            "bytes": pa.array([number + 100 for number in numbers], pa.int64()),
            "modified": pa.array([number * 10 for number in numbers], pa.timestamp("ns", "UTC")),
        }
    )


class Tray(Arrivals):
    """Takes what a loader delivers."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels: dict[Any, tuple[tuple[int, ...], int]] = {}
        self.widths: dict[Any, int] = {}
        self.codes: dict[Any, str] = {}
        self.answers = 0

    def decoded(self, tag: Any, measured: Measured, pixels: Pixels) -> None:
        assert (pixels == pixels[0, 0, 0]).all()
        self.pixels[tag], self.widths[tag] = (pixels.shape, int(pixels[0, 0, 0])), measured.width
        self._count()

    def failed(self, tag: Any, failure: Failure) -> None:
        self.codes[tag] = failure.code
        self._count()

    def _count(self) -> None:
        with self.changed:
            self.answers += 1
            self.changed.notify_all()

    def full(self, count: int) -> bool:
        return self.wait(lambda: self.answers >= count, LONG)


@pytest.mark.parametrize("together", [1, 16])
@pytest.mark.parametrize("how", [SMALL, NATIVE], ids=["one size", "own size"])
def test_every_image_is_answered_once_by_its_tag(decoder_server: DecoderServer, how: Decoding, together: int) -> None:
    tray = Tray()
    with closing(Loader(Folder((3, 77), (5, 40)), how, tray, 2, decoder_server, together)) as loader:
        loader.ask(rows(60), (("first", row) for row in range(60)))
        loader.ask(rows(90), (("second", row) for row in range(90)))
        assert tray.full(150)
    bad = {("first", 3): "read_permission", ("second", 3): "read_permission", ("second", 77): "read_permission"}
    bad |= {(name, number): "not_an_image" for name in ("first", "second") for number in (5, 40)}
    assert tray.codes == bad
    assert (tray.error, tray.answers) == (None, 150)
    for name, count in (("first", 60), ("second", 90)):
        for row in range(count):
            if (name, row) not in bad:
                width = 8 + row % 5
                shape = (4, 4, 3) if how is SMALL else (9, width, 3)
                assert (tray.pixels[name, row], tray.widths[name, row]) == ((shape, row % 256), width)


def test_images_are_read_in_the_order_in_which_they_were_asked_for(decoder_server: DecoderServer) -> None:
    folder, tray = Folder(), Tray()
    folder.threads = 1
    with closing(Loader(folder, SMALL, tray, 1, decoder_server)) as loader:
        loader.ask(rows(100), range(100))
        assert tray.full(100)
    assert folder.read_paths == [str(number) for number in range(100)]


def test_as_many_tags_as_rows_are_needed(decoder_server: DecoderServer) -> None:
    with (
        closing(Loader(Folder(), SMALL, Tray(), 1, decoder_server)) as loader,
        pytest.raises(ValueError, match="longer"),
    ):
        loader.ask(rows(3), range(2))


def test_what_it_did_is_measured(decoder_server: DecoderServer) -> None:
    tray = Tray()
    with closing(Loader(Folder(), SMALL, tray, 2, decoder_server)) as loader:
        loader.ask(rows(40), range(40))
        assert tray.full(40)
        work = loader.work
    assert work.reading > 0
    assert work.cpu > 0
    assert work.decoding > 0
    assert (loader.readers, loader.decoders) == (3, 2)


def test_an_unexpected_error_of_the_source_reaches_the_one_who_waits(decoder_server: DecoderServer) -> None:
    tray = Tray()
    with closing(Loader(Folder(broken=20), SMALL, tray, 1, decoder_server)) as loader:
        loader.ask(rows(40), range(40))
        assert not tray.full(41)
    assert isinstance(tray.error, ZeroDivisionError)


def test_an_error_of_the_outlet_reaches_the_one_who_waits(decoder_server: DecoderServer) -> None:
    class Wrong(Tray):
        def decoded(self, tag: Any, measured: Measured, pixels: Pixels) -> None:
            del tag, measured, pixels
            raise ZeroDivisionError("a bug in an outlet")

    tray = Wrong()
    with closing(Loader(Folder(), SMALL, tray, 1, decoder_server)) as loader:
        loader.ask(rows(5), range(5))
        assert not tray.full(5)
    assert isinstance(tray.error, ZeroDivisionError)


def test_what_is_not_begun_is_dropped_and_nothing_is_left(decoder_server: DecoderServer) -> None:
    threads, descriptors = set(threading.enumerate()), psutil.Process().num_fds()
    tray = Tray()
    with closing(Loader(Folder(), SMALL, tray, 2, decoder_server, together=1)) as loader:
        loader.ask(rows(5000), range(5000))
        assert tray.full(10)
        loader.stop()
    assert 10 <= tray.answers < 5000
    for thread in set(threading.enumerate()) - threads:
        thread.join(LONG)
        assert not thread.is_alive()
    assert psutil.Process().num_fds() <= descriptors


def test_a_stop_while_it_ends_leaves_no_decoder_behind(decoder_server: DecoderServer) -> None:
    """As where a model fails, or a decoder, while the command ends already."""

    class Busy(Tray):
        begun, ended = threading.Event(), threading.Event()

        def decoded(self, tag: Any, measured: Measured, pixels: Pixels) -> None:
            self.begun.set()
            assert self.ended.wait(LONG)
            super().decoded(tag, measured, pixels)

    threads, tray = set(threading.enumerate()), Busy()
    with closing(Loader(Folder(), SMALL, tray, 1, decoder_server, together=1)) as loader:
        loader.ask(rows(1), range(1))
        assert tray.begun.wait(LONG)
        loader.end(0.0)
        loader.stop()
        tray.ended.set()
        for thread in set(threading.enumerate()) - threads:
            thread.join(10)
            assert not thread.is_alive()


def test_few_images_wait_for_the_decoders(decoder_server: DecoderServer) -> None:
    """Read and not answered: two images with a decoder, two in the queue, and one in the hands of each reader."""

    class Ahead(Tray):
        most = 0

        def decoded(self, tag: Any, measured: Measured, pixels: Pixels) -> None:
            self.most = max(self.most, len(folder.read_paths) - self.answers)
            super().decoded(tag, measured, pixels)

    folder, tray = Folder(), Ahead()
    with closing(Loader(folder, SMALL, tray, 1, decoder_server, together=1)) as loader:
        loader.ask(rows(500), range(500))
        assert tray.full(500)
    assert 2 <= tray.most <= 2 + 2 + 3


def test_closing_waits_for_a_dead_share_only_so_long(decoder_server: DecoderServer) -> None:
    folder = Folder()
    folder.open.clear()
    loader = Loader(folder, SMALL, Tray(), 1, decoder_server)
    loader.ask(rows(40), range(40))
    loader.close(0.1)  # without an end of its patience this would wait for a minute
    assert folder.read_paths == []
    folder.open.set()


def test_closing_waits_for_a_child_that_hangs_only_so_long(decoder_server: DecoderServer) -> None:
    class Hung(Folder):
        def read(self, path: str, size: int, modified: int) -> bytes:
            del path, size, modified
            return b"HANG"

    how = Decoding(transform=SMALL.transform, max_pixels=1_000_000, decoder="decoders:toy")
    tray = Tray()
    loader = Loader(Hung(), how, tray, 1, decoder_server)
    loader.ask(rows(1), range(1))
    loader.close(0.1)
    assert tray.answers == 0
