"""The Stage on images that keep a size of their own: the same rows however they are batched, in bounded memory."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import aged
from PIL import Image

from cvjobs.common.errors import JobFailed
from cvjobs.dataset import schema
from cvjobs.dataset.parts import Author
from cvjobs.images.decode import decode
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.measured import Measured
from cvjobs.images.picture import Picture
from cvjobs.images.transform import Transform
from cvjobs.prediction.engine import shape_buckets
from cvjobs.prediction.engine.engine import Engine, EngineSpec
from cvjobs.prediction.engine.shape_buckets import Bins
from cvjobs.prediction.engine.task import Columns
from cvjobs.sources.listing import list_source

pytestmark = pytest.mark.slow

RESULTS = pa.schema([("mean", pa.float64()), ("pixels", pa.list_(pa.int64())), ("source", pa.list_(pa.int64()))])
FREE = Transform(fit="native")
SHORT = Transform(fit="short", resize=40)


@dataclass
class Toy:
    """A step that returns the mean and the sizes of pictures, and its own opener; ``batches`` are their lengths."""

    transform: Transform = FREE
    most: int = 1000  # pictures that its memory holds
    poison: int = -1  # a width that it fails on, 0 for every one
    delay: float = 0.0
    results: pa.Schema = field(default_factory=lambda: RESULTS)
    batches: list[int] = field(default_factory=list)

    def open(self) -> Toy:
        return self

    def shape(self, height: int, width: int) -> tuple[int, int]:
        return -(-height // 16) * 16, -(-width // 16) * 16

    def __call__(self, pictures: Sequence[Picture]) -> Columns:
        time.sleep(self.delay)
        if len(pictures) > self.most:
            raise MemoryError
        if any(self.poison in (0, picture.width) for picture in pictures):
            raise ValueError("poison")
        assert len({self.shape(*picture.pixels.shape[:2]) for picture in pictures}) == 1
        self.batches.append(len(pictures))
        columns = zip(*(row(picture) for picture in pictures), strict=True)
        return Columns([pa.array(column, f.type) for column, f in zip(columns, RESULTS, strict=True)])


def row(picture: Picture) -> tuple[float, tuple[int, ...], tuple[int, int]]:
    return float(picture.pixels.mean()), picture.pixels.shape, (picture.height, picture.width)


@pytest.fixture(scope="module")
def decoder_server() -> Iterator[DecoderServer]:
    shared = DecoderServer()
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 60 sizes, some turned by EXIF, some of one pixel a side, one of 30 megapixels."""
    root, numbers = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    sizes = [(int(w), int(h)) for w, h in numbers.integers(1, 200, (60, 2))] + [(1, 1), (1, 300), (300, 1)]
    for number, (width, height) in enumerate(sizes * 2):
        image = Image.fromarray(numbers.integers(0, 256, (height, width, 3), dtype=np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 1 + number % 8
        image.save(root / f"{number:03}.jpg", exif=exif)
    Image.new("RGB", (6000, 5000), (10, 20, 30)).save(root / "large.png", compress_level=1)
    (root / "broken.jpg").write_bytes(b"no image")
    return aged(root)


def computed(
    decoder_server: DecoderServer, source: Path, out: Path, toy: Toy, batch_size: int = 0
) -> dict[str, tuple[Any, ...]]:
    """Run the Stage over a folder and return its rows by path."""
    listing = list_source(str(source))
    spec = EngineSpec(
        out=str(out),
        storage={},
        author=Author(run=schema.new_run(0), epoch=0, fingerprint="", listed=0),
        epoch=0,
        root=listing.root,
        base=listing.base,
        schema=schema.result_schema(pa.schema([]), RESULTS),
        opener=toy,
        device="cpu",
        cpus=2,
        batch_size=batch_size,
    )
    stage = Engine(spec, decoder_server)
    try:
        half = listing.images.num_rows // 2
        with ThreadPoolExecutor(2) as threads:
            done = list(threads.map(stage.run, (listing.images.slice(0, half), listing.images.slice(half))))
        assert sum(one.images for one in done) == listing.images.num_rows
    finally:
        stage.close()
    table = pa.concat_tables([pq.read_table(file) for file in (out / "data").glob("*.parquet")])
    rows = [tuple(r[name] for name in ("path", "width", "height", *RESULTS.names)) for r in table.to_pylist()]
    assert len(rows) == len({r[0] for r in rows})
    return {r[0]: r[1:] for r in rows}


def plain(source: Path, transform: Transform) -> dict[str, tuple[Any, ...]]:
    """What the rows must be, from a loop over single images."""
    found = {}
    for path in source.iterdir():
        if path.name != "broken.jpg":
            decoded = decode(path.read_bytes(), transform, 80_000_000)
            mean, pixels, size = row(Picture(decoded.pixels, decoded.height, decoded.width))
            found[path.name] = (decoded.width, decoded.height, mean, list(pixels), list(size))
    return found


@pytest.mark.parametrize(("transform", "batch_size"), [(FREE, 0), (FREE, 1), (FREE, 8), (SHORT, 8)])
def test_rows_are_those_of_single_images(
    decoder_server: DecoderServer, source: Path, tmp_path: Path, transform: Transform, batch_size: int
) -> None:
    toy = Toy(transform, delay=0.04)
    assert computed(decoder_server, source, tmp_path, toy, batch_size) == plain(source, transform)
    assert sum(toy.batches) == 127
    assert (max(toy.batches) > 1) == (batch_size != 1)
    assert max(toy.batches) <= (batch_size or 1000)


def test_a_step_short_of_memory_gets_fewer_and_a_picture_it_fails_on_fails_alone(
    decoder_server: DecoderServer, source: Path, tmp_path: Path
) -> None:
    toy = Toy(SHORT, most=2, delay=0.04)
    toy.poison = poisoned = decode((source / "007.jpg").read_bytes(), FREE, 1000_000).width
    rows = computed(decoder_server, source, tmp_path, toy, 8)
    assert rows == {name: r for name, r in plain(source, SHORT).items() if r[0] != poisoned}
    assert "007.jpg" not in rows
    assert max(toy.batches) == 2


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_model_that_fails_on_every_picture_ends_the_run(
    decoder_server: DecoderServer, source: Path, tmp_path: Path, batch_size: int
) -> None:
    with pytest.raises(JobFailed, match="The model fails on every image"):
        computed(decoder_server, source, tmp_path, Toy(SHORT, poison=0), batch_size)


def test_memory_stays_flat(decoder_server: DecoderServer, tmp_path: Path) -> None:
    source, process = tmp_path / "source", psutil.Process()
    source.mkdir()
    for number in range(8):
        size = (1700 + 16 * number, 1200)
        Image.new("RGB", size, (number, 2, 3)).save(source / f"{number}.jpg")
    for number in range(8, 120):
        (source / f"{number}.jpg").hardlink_to(source / f"{number % 8}.jpg")
    before, peaks, ended = process.memory_full_info().uss, [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            peaks.append(process.memory_full_info().uss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert len(computed(decoder_server, aged(source), tmp_path / "out", Toy(delay=0.05))) == 120
    finally:
        ended.set()
        watcher.join()
    assert max(peaks) < 1.5 * shape_buckets.BUDGET  # the pixels alone are 0.7 GB


# Bins by themselves


class Models:
    """Threads that take batches, look at them and give them back."""

    def __init__(self, bins_: Bins, count: int, delay: Callable[[], float]) -> None:
        self.tags: list[int] = []
        self.lengths: list[int] = []
        self.most = 0
        self._bins, self._delay = bins_, delay
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while (batch := self._bins.ready.get()) is not None:
            assert len({self._bins._step.shape(*p.pixels.shape[:2]) for p in batch.images}) == 1
            assert [int(p.pixels[0, 0, 0]) for p in batch.images] == [tag % 256 for tag in batch.tags]
            began = time.monotonic()
            time.sleep(self._delay())
            batch.timed(time.monotonic() - began)
            with self._lock:
                self.tags += batch.tags
                self.lengths.append(len(batch.tags))
                self.most = max(self.most, self._bins._used)
            self._bins.release(batch)

    def end(self) -> None:
        for _ in self._threads:
            self._bins.ready.put(None)
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


def poured(bins_: Bins, shapes: list[tuple[int, int]], threads: int) -> None:
    """Put pictures of these shapes from several threads, then flush."""

    def put(first: int) -> None:
        for tag in range(first, len(shapes), threads):
            height, width = shapes[tag]
            measured = Measured(width=width, height=height, frames=1, content_hash=b"")
            bins_.put(tag, measured, np.full((height, width, 3), tag % 256, np.uint8))

    putters = [threading.Thread(target=put, args=(first,), daemon=True) for first in range(threads)]
    for putter in putters:
        putter.start()
    for putter in putters:
        putter.join(60)
        assert not putter.is_alive(), "the bins stand still"
    bins_.flush()


@pytest.mark.parametrize("models", [1, 2])
@pytest.mark.parametrize("putters", [1, 4])
@pytest.mark.parametrize("budget", [1, 20_000])
def test_every_picture_comes_once_however_little_room_there_is(
    monkeypatch: pytest.MonkeyPatch, models: int, putters: int, budget: int
) -> None:
    monkeypatch.setattr(shape_buckets, "BUDGET", budget)
    monkeypatch.setattr(shape_buckets, "LEAST", 1)
    chance = random.Random(models + putters + budget)
    shapes = [(1 + tag % 97, chance.randrange(1, 40)) for tag in range(400)]
    filled = Bins(Toy(), 4, (1, 1), models)
    taken = Models(filled, models, lambda: chance.choice((0.0, 0.0, 0.002)))
    poured(filled, shapes, putters)
    taken.end()
    assert sorted(taken.tags) == list(range(400))
    assert filled._used == filled._alive == 0
    assert taken.most <= max(budget, 3 * 97 * 40)


def test_a_busy_model_gets_full_batches_and_no_picture_waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape_buckets, "LINGER", 0.2)
    filled = Bins(Toy(), 8, (1, 1), 1)
    taken = Models(filled, 1, lambda: 0.03)
    poured(filled, [(200, 8)] + [(8, 8)] * 160, 1)
    taken.end()
    assert taken.lengths.count(8) >= 18
    assert sorted(taken.tags) == list(range(161))


def test_a_better_batch_size_is_in_force_at_once_however_many_pictures_wait() -> None:
    filled = Bins(Toy(), 0, (1 << 9, 1 << 14), 1)
    taken = Models(filled, 1, lambda: 0.02)
    poured(filled, [(8, 8)] * 300, 4)
    taken.end()
    assert max(taken.lengths) == 32
    assert len(taken.lengths) <= 40


def test_the_batch_size_is_counted_in_pixels() -> None:
    filled = Bins(Toy(), 0, (1 << 20, 1 << 20), 1)
    found = {side: filled._batch(side, side).capacity for side in (16, 256, 320, 512, 800, 1024, 4000)}
    assert found == {16: 2048, 256: 8, 320: 8, 512: 2, 800: 1, 1024: 1, 4000: 1}
