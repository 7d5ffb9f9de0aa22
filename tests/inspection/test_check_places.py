"""`cvjobs check` on images in a bucket, and after a kill: every file it leaves is whole."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from buckets import made
from commands import CLI, here, kill, started
from PIL import Image


def images(folder: Path, count: int, side: int = 40) -> Path:
    """So many noisy images of two classes."""
    random = np.random.default_rng(count)
    for number in range(count):
        place = folder / ("cat" if number % 2 else "dog") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (side, side, 3), np.uint8)).save(place)
    return folder


@pytest.mark.faults
def test_images_and_page_in_a_bucket(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    bucket = made(s3, "check")
    data = images(tmp_path / "data", 12)
    shutil.copy(data / "cat/1.png", data / "cat/again.png")
    bucket.upload(data, "pets")
    ended = here("check", bucket.url("pets"), "-o", bucket.url("look"), *bucket.options)
    assert ended.code in (0, 1), ended
    numbers: dict[str, Any] = json.loads(bucket.read("look/check.json"))
    assert sum(numbers["images"].values()) == 13
    assert {kind: own["count"] for kind, own in numbers["problems"].items()} in ({"double": 1}, {"leak": 1})
    assert b"cvjobs check" in bucket.read("look/report.html")
    content = {"images": [{"id": 1, "file_name": "cat/1.png"}, {"id": 2, "file_name": "dog/0.png"}], "annotations": []}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    words = ("check", bucket.url("pets"), "--truth", tmp_path / "truth.json", "-o", tmp_path / "out", *bucket.options)
    assert here(*words).code == 0
    rows = pq.read_table(tmp_path / "out/problems.parquet").to_pylist()
    assert sorted(row["problem"] for row in rows) == ["double", *["truth_missing"] * 11]


@pytest.mark.faults
def test_a_kill_leaves_what_was_there_and_the_same_command_does_it_all(tmp_path: Path) -> None:
    data, out = images(tmp_path / "data", 400, 200), tmp_path / "out"
    assert here("check", data, "-o", out).code == 0
    before = left(out)
    assert sorted(before) == ["check.json", "problems.parquet", "report.html"]
    shutil.move(images(tmp_path / "more", 401, 200) / "dog/400.png", data / "dog")
    for number, seconds in ((signal.SIGKILL, 3), (signal.SIGINT, 5)):
        with started([*CLI, "check", str(data), "-o", str(out)]) as process:
            time.sleep(seconds)
            running = process.poll() is None
            kill(process, number)
            process.wait(60)
            assert not running or process.returncode in (-signal.SIGKILL, 130)
        assert not running or left(out) == before
    assert here("check", data, "-o", out).code == 0
    assert sum(json.loads((out / "check.json").read_text())["images"].values()) == 401


def left(out: Path) -> dict[str, bytes]:
    """The files of a folder, without those that are being written."""
    return {path.name: path.read_bytes() for path in out.iterdir() if not path.name.startswith(".tmp-")}
