"""The engine among images that do harm: every other row is of its own pixels, and nothing is left of any death.

Image N of ``decoders.numbered`` says in each of its pixels, and in its width, which one it is.
"""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from commands import TESTS, aged, gone, until
from decoders import number_of, own_size

from cvjobs.common.errors import JobFailed
from cvjobs.dataset import schema
from cvjobs.dataset.parts import Author
from cvjobs.images import decode_worker
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.picture import Picture, Pixels
from cvjobs.images.transform import Transform
from cvjobs.prediction.engine.engine import Engine, EngineSpec
from cvjobs.prediction.engine.task import Columns
from cvjobs.sources.listing import list_source

pytestmark = pytest.mark.slow

RESULTS = pa.schema([("number", pa.int64()), ("size", pa.list_(pa.int64()))])
PATIENCE = 1.0


@dataclass
class OneSize:
    """A step that says which images it sees, and its own opener."""

    side: int = 6
    delay: float = 0.0
    results: pa.Schema = field(default_factory=lambda: RESULTS)
    batches: list[int] = field(default_factory=list)

    @property
    def transform(self) -> Transform:
        return Transform(size=(self.side, self.side), fit="exact")

    def open(self) -> Any:
        return self

    def __call__(self, pixels: Pixels) -> Columns:
        return self._seen(list(pixels))

    def _seen(self, pixels: list[Pixels]) -> Columns:
        time.sleep(self.delay)
        self.batches.append(len(pixels))
        numbers, sizes = [number_of(image) for image in pixels], [list(image.shape[:2]) for image in pixels]
        return Columns([pa.array(numbers, pa.int64()), pa.array(sizes, RESULTS.field("size").type)])


class OwnSize(OneSize):
    """The same of images that keep a size of their own."""

    @property
    def transform(self) -> Transform:
        return Transform(fit="native")

    def shape(self, height: int, width: int) -> tuple[int, int]:
        return height, -(-width // 2) * 2

    def __call__(self, pictures: Sequence[Picture]) -> Columns:  # type: ignore[override]
        return self._seen([picture.pixels for picture in pictures])


KINDS = pytest.mark.parametrize("kind", [OneSize, OwnSize])


@pytest.fixture(scope="module")
def server() -> Iterator[DecoderServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TESTS))
        with closing(DecoderServer(keep=False)) as shared:
            shared.start()
            yield shared


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_worker, "PATIENCE", PATIENCE)


def process(server: DecoderServer) -> psutil.Process:
    """The process that forks the children."""
    assert server._server is not None
    return psutil.Process(server._server.process.pid)


def shared_memory() -> list[str]:
    """What this process holds of the memory that it shares with children."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(os.readlink(descriptor))
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:cvjobs" in line]
    return [name for name in found if "memfd:cvjobs" in name] + mapped


@pytest.fixture
def nothing_left(server: DecoderServer) -> Iterator[None]:
    """Afterwards there is no process, thread, descriptor or shared memory more than before; nothing waits for gc."""
    gc.collect()
    threads, descriptors = set(threading.enumerate()), psutil.Process().num_fds()
    memory, children = set(shared_memory()), psutil.Process().children(recursive=True)  # what other tests left
    gc.disable()
    try:
        yield
        for thread in set(threading.enumerate()) - threads:
            thread.join(10)
        assert set(threading.enumerate()) <= threads
        assert set(shared_memory()) <= memory
        assert psutil.Process().num_fds() <= descriptors
        more = [p for p in psutil.Process().children(recursive=True) if p not in [*children, process(server)]]
        assert psutil.wait_procs(more, 5)[1] == []
    finally:
        gc.enable()


class Run:
    """One engine over a folder of images, of which some have words that do harm."""

    def __init__(self, root: Path, count: int, words: dict[int, str], server: DecoderServer, step: OneSize) -> None:
        self.contents = {number: f"{number} {words.get(number, '')}".encode() for number in range(count)}
        for number, content in self.contents.items():
            place = root / "source" / f"{number % 10}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.jpg").write_bytes(content)
        self.out, self.step, self._server = root / "out", step, server
        self.confine = False
        self.listing = list_source(str(aged(root / "source")))

    def engine(self, batch_size: int = 0) -> Engine:
        return Engine(
            EngineSpec(
                out=str(self.out),
                storage={},
                author=Author(run=schema.new_run(0), epoch=0, fingerprint="", listed=0),
                epoch=0,
                root=self.listing.root,
                base=self.listing.base,
                schema=schema.result_schema(pa.schema([]), RESULTS),
                opener=self.step,
                device="cpu",
                cpus=2,
                batch_size=batch_size,
                max_pixels=1000,
                decoder="decoders:numbered",
                confine=self.confine,
            ),
            self._server,
        )

    def compute(self, batch_size: int = 0, shards: int = 4) -> None:
        images = self.listing.images
        each = -(-images.num_rows // shards)
        engine = self.engine(batch_size)
        try:
            with ThreadPoolExecutor(2) as threads:
                pieces = [images.slice(at, each) for at in range(0, images.num_rows, each)]
                assert sum(one.images for one in threads.map(engine.run, pieces)) == images.num_rows
        finally:
            engine.close()
        assert engine.pace.answered == images.num_rows

    def check(self, bad: dict[int, str]) -> None:
        """Every image has one row, of its own pixels or with its error."""
        failed = {int(Path(r["path"]).stem): r["code"] for r in self._rows("errors")}
        assert failed == bad
        good = self._rows("data")
        assert len(good) + len(bad) == len(self.contents)
        own = self.step.transform.size is None
        for row in good:
            number = int(Path(row["path"]).stem)
            assert (row["number"], row["width"]) == (number, number + 1)
            assert row["content_hash"] == xxhash.xxh3_128_digest(self.contents[number])
            assert tuple(row["size"]) == (own_size(number) if own else (self.step.side,) * 2)
        assert {int(Path(row["path"]).stem) for row in good} == self.contents.keys() - bad.keys()

    def _rows(self, folder: str) -> list[dict[str, Any]]:
        files = list((self.out / folder).glob("*.parquet"))
        rows: list[dict[str, Any]] = pa.concat_tables(map(pq.read_table, files)).to_pylist() if files else []
        assert len(rows) == len({row["path"] for row in rows})
        return rows


CODES = {"ABORT": "decode_crash", "HANG": "decode_timeout", "HOG": "decode_memory", "BAD": "corrupt"}


def isolated(
    root: Path, server: DecoderServer, kind: type[OneSize], count: int, *, confine: bool = False, **harm: int
) -> None:
    words = [word for word, times in harm.items() for _ in range(times)]
    chosen = dict(zip(random.Random(count).sample(range(count), len(words)), words, strict=True))
    run = Run(root, count, chosen, server, kind())
    run.confine = confine
    run.compute()
    run.check({number: CODES[word] for number, word in chosen.items()})


@KINDS
@pytest.mark.parametrize("confine", [False, True], ids=["read by children", "read by threads"])
@pytest.mark.usefixtures("nothing_left")
def test_a_few_deaths_and_hangs(tmp_path: Path, server: DecoderServer, kind: type[OneSize], confine: bool) -> None:
    isolated(tmp_path, server, kind, 300, confine=confine, ABORT=3, HANG=2, HOG=2, BAD=9)


@KINDS
@pytest.mark.faults(minutes=2)
@pytest.mark.usefixtures("nothing_left")
def test_forty_five_deaths_among_5000_images(tmp_path: Path, server: DecoderServer, kind: type[OneSize]) -> None:
    isolated(tmp_path, server, kind, 5000, ABORT=20, HANG=20, HOG=5, BAD=100)


@KINDS
@pytest.mark.parametrize(("batch_size", "shards"), [(1, 1), (3, 7), (64, 1)])
@pytest.mark.usefixtures("nothing_left")
def test_batches_of_which_none_or_the_last_ones_can_be_decoded(
    tmp_path: Path, server: DecoderServer, kind: type[OneSize], batch_size: int, shards: int
) -> None:
    bad = dict.fromkeys([*range(3, 50), *range(90, 100)], "BAD")
    bad[99] = "ABORT"
    run = Run(tmp_path, 100, bad, server, kind())
    run.compute(batch_size, shards)
    run.check({number: CODES[word] for number, word in bad.items()})
    assert max(run.step.batches) <= batch_size
    assert sum(run.step.batches) == 43


@KINDS
@pytest.mark.usefixtures("nothing_left")
def test_not_one_image_can_be_decoded(tmp_path: Path, server: DecoderServer, kind: type[OneSize]) -> None:
    run = Run(tmp_path, 150, dict.fromkeys(range(150), "BAD"), server, kind())
    run.compute()
    run.check(dict.fromkeys(range(150), "corrupt"))
    assert run.step.batches == []


def killing(server: DecoderServer, deaths: int, done: Callable[[], bool]) -> int:
    """Kill children of a server until so many died, or it is done; return how many died."""
    chance, dead = random.Random(deaths), 0
    while dead < deaths and not done():
        with suppress(psutil.NoSuchProcess, IndexError):
            chance.choice(process(server).children()).kill()
            dead += 1
        time.sleep(chance.choice((0.01, 0.05, 0.2)))
    return dead


@KINDS
@pytest.mark.parametrize(("count", "deaths"), [(400, 6), pytest.param(5000, 60, marks=pytest.mark.faults(minutes=3))])
@pytest.mark.usefixtures("nothing_left")
def test_children_killed_at_any_moment(
    tmp_path: Path, server: DecoderServer, kind: type[OneSize], count: int, deaths: int
) -> None:
    run = Run(tmp_path, count, dict.fromkeys(range(0, count, 5), "SLOW"), server, kind())
    with ThreadPoolExecutor(1) as threads:
        computed = threads.submit(run.compute)
        dead = killing(server, deaths, computed.done)
        computed.result()
    failed = {int(Path(r["path"]).stem) for r in run._rows("errors")}
    assert dead > 2
    assert len(failed) <= dead // 2  # an image that two children died at
    run.check(dict.fromkeys(failed, "decode_crash"))


@KINDS
@pytest.mark.parametrize("moment", ["before", "decoding", "hanging", "model", "waiting for places"])
@pytest.mark.usefixtures("nothing_left")
def test_a_stop_at_any_moment_leaves_nothing(
    tmp_path: Path, server: DecoderServer, kind: type[OneSize], moment: str
) -> None:
    delay = {"model": 0.3, "waiting for places": 0.3}.get(moment, 0.0)
    words = {"decoding": "SLOW", "hanging": "HANG"}.get(moment, "")
    run = Run(tmp_path, 300, dict.fromkeys(range(300), words), server, kind(delay=delay))
    engine = run.engine(4 if delay else 0)
    try:
        with ThreadPoolExecutor(1) as threads:
            ended = threads.submit(engine.run, run.listing.images)
            if moment in ("decoding", "hanging"):
                until(lambda: process(server).children(), 20)
                time.sleep(0.3)
            elif delay:
                until(lambda: len(run.step.batches) >= 2, 20)
            engine.stop()
            assert ended.exception() is not None
    finally:
        began = time.monotonic()
        engine.close()
    assert time.monotonic() - began < 20
    until(lambda: not process(server).children(), 20)


@pytest.mark.parametrize("kind", [pytest.param(OneSize, marks=pytest.mark.faults(minutes=0.2)), OwnSize])
def test_a_server_killed_in_the_middle_loses_no_image(tmp_path: Path, kind: type[OneSize]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TESTS))
        with closing(DecoderServer(keep=False)) as own:
            run = Run(tmp_path, 300, dict.fromkeys(range(300), "SLOW"), own, kind())
            with ThreadPoolExecutor(1) as threads:
                computed = threads.submit(run.compute)
                until(lambda: own._server and own._server.ready and process(own).children(), 60)
                first = process(own)
                children = first.children()
                time.sleep(0.5)
                first.kill()
                computed.result()
            run.check({})
            assert all(gone(child) for child in children)
    assert shared_memory() == []


@KINDS
@pytest.mark.usefixtures("nothing_left")
def test_a_model_that_fails_leaves_nothing(tmp_path: Path, server: DecoderServer, kind: type[OneSize]) -> None:
    class Wrong(kind):  # type: ignore[misc, valid-type]
        def _seen(self, pixels: list[Pixels]) -> Columns:
            raise ValueError(f"not {len(pixels)} images")

    run = Run(tmp_path, 300, {}, server, Wrong())
    with pytest.raises(JobFailed, match="The model fails on every image"):
        run.compute()


@KINDS
@pytest.mark.parametrize("confine", [False, True], ids=["read by children", "read by threads"])
@pytest.mark.usefixtures("nothing_left")
def test_a_share_that_goes_away_ends_the_run_and_leaves_nothing(
    tmp_path: Path, server: DecoderServer, kind: type[OneSize], confine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_worker, "LOST", 200)
    run = Run(tmp_path, 500, {}, server, kind())
    run.confine = confine
    for file in list((tmp_path / "source").rglob("*.jpg"))[100:]:
        file.unlink()
        file.symlink_to(file)
    with pytest.raises(JobFailed, match="200 images in a row could not be read"):
        run.compute()
