"""Trainings on images of which not all stay decoded: which chunks come and go, and that nothing else changes."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from training import SIDE, TIMED, folder

import cvjobs
from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.config.byte_sizes import parse_bytes
from cvjobs.dataset import sealed_table
from cvjobs.images.transform import Transform
from cvjobs.storage.local_store import LocalStore
from cvjobs.training.data import decode_request, decoded, own_cache, passage, prepare, whole_pictures
from cvjobs.training.data.chunk_pixels import ROWS
from cvjobs.training.data.decode_order import DecodeOrder
from cvjobs.training.data.decode_request import WHOLE_SCHEMA, DecodeRequest
from cvjobs.training.data.passage import Passage
from cvjobs.training.plan import HISTORY
from cvjobs.training.recipe import sampling
from cvjobs.training.recipe.recipe import named

OPTIONS: dict[str, Any] = {
    "model": "small/cnn", "recipe": "quick", "epochs": 3, "img_size": str(SIDE), "batch_size": 32, "scale": "0.5:1",
}  # fmt: skip
WINDOW = 2
CHUNKS, EACH = 20, 3 * 64 * 8 * 8


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sampling, passage):
        monkeypatch.setattr(module, "WINDOW", WINDOW)
    monkeypatch.setattr(whole_pictures, "MAPPED", 3 * WINDOW)


class Decoding:
    """A passage through 20 chunks of 64 pictures of 8 x 8 pixels, which are there as soon as they are asked for."""

    def __init__(self, place: Path, room: int) -> None:
        count = CHUNKS * 64
        rows = pa.table({"path": [f"{n}.png" for n in range(count)], "version": [0] * count, "bytes": [500] * count})
        self.request = DecodeRequest(
            rows=rows, root="", transform=Transform(resize=512, fit="whole"), max_pixels=99, folder=f"{place}/cache"
        )
        self.place, self.count = place, count
        self.names = [os.path.basename(name) for name, _ in self.request.chunks()]
        self.failing: set[int] = set()  # chunks of which no image can be decoded
        there = {name: t for name, _ in self.request.chunks() if (t := self.table(name)) is not None}
        self.passage = Passage(self.request, there, self.order, room, f"{place}/passing")

    def order(self, epoch: int) -> list[int]:
        return [int(number) for number in sampling.chunk_order(self.count, self.request.length, 5, epoch)]

    def table(self, folder: str) -> pa.Table | None:
        return sealed_table.read(LocalStore(folder), ROWS) if os.path.exists(f"{folder}/{ROWS}") else None

    def decode(self) -> int:
        """Decode until nothing is wanted; return how many chunks that were."""
        done = 0
        for following in self.passage.missing(all_known=False):
            if following is None:
                break
            folder, rows = following
            some = [{"path": path, "offset": 0, "height": 8, "width": 8} for path in rows["path"].to_pylist()]
            if self.names.index(os.path.basename(folder)) in self.failing:
                some = [{"path": each["path"], "code": "decode_failed"} for each in some]
            os.makedirs(folder)
            sealed_table.write(LocalStore(folder), ROWS, table := pa.Table.from_pylist(some, WHOLE_SCHEMA))
            self.passage.published(folder, table)
            done += 1
        return done

    def there(self, chunk: int) -> bool:
        """Whether a reader finds a chunk."""
        folder = self.request.chunks()[chunk][0]
        return any(os.path.exists(f"{f}/{ROWS}") for f in (folder, f"{self.place}/passing/{os.path.basename(folder)}"))

    def kept(self) -> int:
        return len(list((self.place / "cache").iterdir())) if (self.place / "cache").exists() else 0

    def passing(self) -> int:
        return sum(file.is_dir() for file in (self.place / "passing").iterdir())


def test_what_is_needed_is_there_what_stays_fits_and_the_rest_goes(tmp_path: Path) -> None:
    made = Decoding(tmp_path, room=5 * EACH)
    assert made.request.length == 64
    made.passage._request = made.request
    total = 0
    for epoch in range(3):
        for start, end in sampling.windows(CHUNKS, epoch):
            made.passage.reach(epoch, start * 64)
            total += made.decode()
            assert all(made.there(chunk) for chunk in made.order(epoch)[start:end])
            assert made.kept() <= 5
            assert made.passing() <= 2 * WINDOW
        if not epoch:
            assert made.passage.known
    assert made.kept() <= 5
    assert total <= CHUNKS + 2 * (CHUNKS - made.kept()) + 2 * WINDOW, "what does not stay comes once in each epoch"


def test_a_run_that_goes_on_knows_what_became_of_images_that_are_gone(tmp_path: Path) -> None:
    made = Decoding(tmp_path, room=5 * EACH)
    for start in range(0, CHUNKS, WINDOW):
        made.passage.reach(0, start * 64)
        made.decode()
    again = Decoding(tmp_path, room=5 * EACH)
    assert again.passage.known
    assert again.passage.table["path"].to_pylist() == again.request.rows["path"].to_pylist()
    assert again.passing() == 0
    again.passage.reach(1, 10 * 64)
    assert 0 < again.decode() <= 2 * WINDOW + 5
    assert all(again.there(chunk) for chunk in again.order(1)[10:12])
    for file in (tmp_path / "passing").glob("*.seen"):  # an earlier command did not come to note it
        file.unlink()
    forgetful = Decoding(tmp_path, room=5 * EACH)
    forgetful.passage.reach(1, 10 * 64)
    forgetful.decode()
    assert forgetful.passage.known


def test_a_group_of_which_no_image_can_be_decoded_has_the_next_one_beside_it(tmp_path: Path) -> None:
    made = Decoding(tmp_path, room=0)
    made.failing = {3, 4}
    for epoch in range(2):
        for start, end in sampling.windows(CHUNKS, epoch):
            made.passage.reach(epoch, start * 64)
            made.decode()
            if {3, 4} & set(made.order(epoch)[start:end]):
                assert made.there(5), "its images stand in for those of the others"


@pytest.mark.slow
def test_a_data_set_four_times_its_cache_is_trained_on_as_one_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = folder(tmp_path / "images" / "train", 270).parent
    folder(root / "val", 6, seed=1)
    (root / "train" / "red" / "007.png").write_bytes(b"no image")
    monkeypatch.setattr(prepare, "EARLY", 0.0)
    monkeypatch.setattr(decode_request, "MOST", 64)
    fits = cvjobs.train(root, tmp_path / "fits", **OPTIONS)
    capfd.readouterr()
    cache = tmp_path / "cache"
    part = cvjobs.train(root, tmp_path / "part", **OPTIONS, cache=cache, cache_size="39kB")
    said = capfd.readouterr().err
    assert "of which --cache-size keeps 8%" in said, "images are estimated larger than these are"
    assert "images are decoded again in each epoch" in said
    one, two = (pd.read_parquet(tmp_path / run / HISTORY).drop(columns=list(TIMED)) for run in ("fits", "part"))
    assert one.equals(two)
    assert (part.failed, part.images) == (fits.failed, fits.images) == (1, {"train": 809, "val": 18})
    kept = sum(file.stat().st_size for file in cache.glob("*/pixels.bin"))
    assert 4 * kept <= 809 * 3 * SIDE * SIDE
    assert len(list(cache.glob("*/pixels.bin"))) == 3, "of 13 groups"
    assert not list(cache.glob("*.passing*"))
    assert not (tmp_path / "part" / "cache").exists(), "what does not stay is on the disk of the cache, too"
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_images_that_are_gone_when_they_are_decoded_again_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path / "images" / "train", 270).parent
    folder(root / "val", 6, seed=1)
    monkeypatch.setattr(prepare, "EARLY", 0.0)
    monkeypatch.setattr(decode_request, "MOST", 64)
    run = tmp_path / "run"

    def take_away() -> None:
        while not (run / HISTORY).exists():
            time.sleep(0.01)
        root.rename(tmp_path / "away")

    thread = threading.Thread(target=take_away)
    thread.start()
    with pytest.raises(JobFailed, match=r"no more what they were .*read_\w+ \(train/.*make them what they were"):
        cvjobs.train(root, run, **{**OPTIONS, "epochs": 200}, cache_size="39kB")
    thread.join()


@pytest.mark.slow
def test_what_killed_commands_left_goes(tmp_path: Path) -> None:
    root = folder(tmp_path / "images", 6)
    cache, left = tmp_path / "cache", tmp_path / "run" / "cache" / "run.passing" / ("0" * 32)
    left.mkdir(parents=True)  # of one that was killed with --cache-size
    old, new = (cache / f"{digit * 32}.{digit * 12}" for digit in "ab")
    for place in (old, new):
        place.mkdir(parents=True)
    os.utime(old, (1, time.time() - 8 * 24 * 3600))
    cvjobs.train(root, tmp_path / "run", **{**OPTIONS, "epochs": 1, "batch_size": 8}, cache=cache)
    assert not old.exists()
    assert new.exists(), "another command may decode it now"
    assert not (tmp_path / "run" / "cache").exists()


def test_a_cache_is_asked_for_room_for_what_is_kept_and_passes_and_for_no_more_than_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Decoding(tmp_path, room=0)
    order = DecodeOrder(
        requests={"train": made.request}, root="", base="", storage={}, confine=False, run="run", cache=None, seed=5
    )
    needs = []
    monkeypatch.setattr(decoded, "check_room", lambda staying, _, more: needs.append((len(staying), more)))
    whole = made.request.needed()
    group = whole // CHUNKS
    for room in (0, group, whole - group):
        replace(order, room=room).check_room()
    assert needs == [(1, 0), (0, group + 2 * WINDOW * group), (0, whole)]


def test_a_cache_is_in_the_same_place_for_workers_with_other_working_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert own_cache.folder("/run", "mine") == own_cache.of_machine("/run", "mine") == str(tmp_path / "mine")


def test_what_takes_images_in_another_order_needs_all_of_them(tmp_path: Path) -> None:
    root = folder(tmp_path / "images", 3)
    others: list[dict[str, Any]] = [{"sampling": "balanced"}, {"find_lr": True}]
    for more in others:
        with pytest.raises(WrongUse, match="needs all images decoded: leave out --cache-size"):
            cvjobs.train(root, tmp_path / "run", **{**OPTIONS, **more}, cache_size="1GB")


def test_sizes_are_read_as_people_write_them() -> None:
    sizes = {"200GB": 200 * 10**9, "1.5 TB": 1.5e12, "64MiB": 1 << 26, "100": 100, "3 k": 3000}
    assert {text: parse_bytes(text, "--cache-size") for text in sizes} == sizes
    for text in ("", "0", "GB", "1 banana", "-5GB", "1e3"):
        with pytest.raises(WrongUse, match="--cache-size must be a size such as 200GB or 64MiB, not"):
            parse_bytes(text, "--cache-size")


def test_orders_mix_no_more_than_a_window() -> None:
    order = sampling.order(np.zeros(64 * CHUNKS, np.int64), named("quick"), 5, 2, 64)
    chunks = sampling.chunk_order(64 * CHUNKS, 64, 5, 2).tolist()
    for start, end in sampling.windows(CHUNKS, 2):
        assert set((order[64 * start : 64 * end] // 64).tolist()) == set(chunks[start:end])
