"""``cvjobs detect`` and ``cvjobs segment`` under what befell ``embed``: kills, nights, bad images and odd names, Ray.

One image a batch makes rows bit for bit repeatable; how much batches may change them is said where models are tested.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import calibrated
import pytest
from commands import aged, codes, errors, exact, killed_often, rows, run, some, verify, week
from PIL import Image

import cvjobs
from cvjobs.common import devices

Words = tuple[str, ...]

DETECTOR = "ssdlite320_mobilenet_v3_large"
SINGLE = ("--batch-size", "1")
SEGMENT = ("segment", "--model", "lraspp_mobilenet_v3_large", "--weights", "random", "--imgsz", "96", *SINGLE)
BOTH = pytest.mark.parametrize("command", ["detect", "segment"])
ODD = (b"<script>alert(1).jpg", b"new\nline.jpg", b"not utf-8 \xff.jpg", b"=1+1.jpg", "ünï 🦆.jpg".encode())
BAD = {"not_an_image": 1, "truncated": 1, "too_many_pixels": 1, "empty_file": 1, "list_vanished": 1}


@pytest.fixture
def detect(tmp_path_factory: pytest.TempPathFactory) -> Words:
    """The words of a command that finds some boxes in a photo."""
    file = calibrated.weights(DETECTOR, tmp_path_factory)
    return ("detect", "--model", DETECTOR, "--weights", str(file), "--max-det", "50", *SINGLE)


@pytest.fixture
def words(command: str, detect: Words) -> Words:
    return detect if command == "detect" else SEGMENT


def function(words: Words, source: Path, out: Path) -> dict[str, Any]:
    """Run a command inside this process, which saves its start."""
    name, *options = words
    named = {
        key.removeprefix("--").replace("-", "_"): value for key, value in zip(options[::2], options[1::2], strict=True)
    }
    typed: dict[str, Any] = {key: _typed(value) for key, value in named.items()}
    summary: dict[str, Any] = getattr(cvjobs, name)(str(source), str(out), **typed).as_dict()
    return summary


def _typed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def spoiled(folder: Path, photo: Path) -> None:
    """Add bad images and photos with odd names to a folder."""
    content = photo.read_bytes()
    (folder / "text.jpg").write_text("no image")
    (folder / "half.jpg").write_bytes(content[: len(content) // 2])
    (folder / "empty.png").touch()
    (folder / "gone.jpg").symlink_to("nowhere")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    for name in ODD:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(content)
    for path in folder.iterdir():
        if path.is_file():
            os.utime(path, ns=(10**18, 10**18))


def a_week(words: Words, photos: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    nights = week(photos, source)
    for night, (computed, reused, failed) in enumerate(nights):
        if night == 0:
            spoiled(source, photos / "album0" / "photo0000.jpg")
        found = function(words, source, out)
        more = len(ODD) + len(BAD)
        assert (found["computed"], found["reused"]) == (computed + more * (night == 0), reused + more * (night > 0))
        assert found["failed"] == failed + len(BAD)
        assert codes(out) == Counter(BAD) + Counter({"not_an_image": failed})
        exact(out, source, found["ok"] + found["failed"])
    function(words, source, tmp_path / "fresh")
    assert rows(out).equals(rows(tmp_path / "fresh"))


@pytest.mark.faults
def test_a_week_of_segment(photos: Path, tmp_path: Path) -> None:
    a_week(SEGMENT, photos, tmp_path)


@pytest.mark.faults
def test_a_week_of_detect(photos: Path, tmp_path: Path, detect: Words) -> None:
    a_week(detect, photos, tmp_path)
    assert all(rows(tmp_path / "out")["detections"].to_pylist())


@pytest.mark.faults
def test_two_kills_of_detect(photos: Path, tmp_path: Path, detect: Words) -> None:
    killed_often(some(photos, tmp_path / "source", 40), tmp_path / "outs", 40, 2, 2, detect)
    assert all(rows(tmp_path / "outs" / "0")["detections"].to_pylist())


@pytest.mark.faults
@BOTH
def test_ten_kills(photos: Path, tmp_path: Path, words: Words) -> None:
    source = some(photos, tmp_path / "source", 200)
    spoiled(source, photos / "album0" / "photo0000.jpg")
    count = 200 + len(ODD) + len(BAD)
    killed_often(source, tmp_path / "outs", count, 10, 6, (*words, "--max-error-rate", "0.5"))
    assert codes(tmp_path / "outs" / "0") == BAD


@pytest.mark.faults
@BOTH
def test_batches_change_rounding_only(photos: Path, tmp_path: Path, command: str, words: Words) -> None:
    source = some(photos, tmp_path / "source", 60)
    Image.new("RGB", (90, 30), (200, 100, 50)).save(source / "wide.png")
    tables = []
    for size in ("1", "8"):
        function((*words[:-1], size), aged(source), tmp_path / size)
        tables.append(rows(tmp_path / size))
    single, batched = tables
    assert single.select(["path", "width", "height"]).equals(batched.select(["path", "width", "height"]))
    if command == "segment":
        # Pixels by class; a class that rounding added or removed has few.
        for one, other in zip(single["classes"].to_pylist(), batched["classes"].to_pylist(), strict=True):
            counts = [Counter({c["category_id"]: c["pixels"] for c in classes}) for classes in (one, other)]
            assert sum(((counts[0] - counts[1]) + (counts[1] - counts[0])).values()) <= 0.002 * sum(counts[0].values())
        return
    for one, other in zip(single["detections"].to_pylist(), batched["detections"].to_pylist(), strict=True):
        assert [d["score"] for d in one] == pytest.approx([d["score"] for d in other], abs=1e-3)


@pytest.mark.faults
@pytest.mark.ray
@pytest.mark.skipif(devices.cpus() < 2, reason="two workers need two cores")
@BOTH
def test_two_workers_give_the_rows_of_one(photos: Path, tmp_path: Path, words: Words) -> None:
    source, one, two = some(photos, tmp_path / "source", 60), tmp_path / "one", tmp_path / "two"
    spoiled(source, photos / "album0" / "photo0000.jpg")
    name, *options = words
    for out, workers in ((one, 1), (two, 2)):
        ended = run(name, source, "-o", out, *options, "--workers", workers, "--max-error-rate", 0.5)
        assert ended.code == 0, ended
        assert ended.left == []
    assert rows(one).equals(rows(two))
    assert errors(one).equals(errors(two))
    assert verify(two, source).code == 0
