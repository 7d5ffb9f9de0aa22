"""Images that show nothing, and images that are all the same file: seen by some pixels, said if there are many."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import aged, embed
from page_parser import harmless
from PIL import Image

from cvjobs.images.blank_images import LOOKS, BlankImages, ContentCounter, Seen, look, many
from cvjobs.images.picture import Pixels
from cvjobs.prediction.engine.throughput import Pace, overall
from cvjobs.prediction.report.history import Record

RANDOM = np.random.default_rng(0)


def noise(low: int, high: int, height: int = 90, width: int = 130) -> Pixels:
    return RANDOM.integers(low, high, (height, width, 3), dtype=np.uint8)


def spotted() -> Pixels:
    """A black picture with a lamp in it."""
    pixels = noise(0, 9)
    pixels[30:50, 40:70] = 200
    return pixels


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (noise(0, 9), "black"),
        (noise(250, 255), "white"),
        (np.full((1, 1, 3), (10, 200, 90), np.uint8), "one colour"),
        (np.full((700, 3, 3), (10, 200, 90), np.uint8), "one colour"),
        (noise(0, 255), ""),
        (noise(100, 120), ""),
        (spotted(), ""),
    ],
)
def test_what_shows_nothing_is_seen(pixels: Pixels, kind: str) -> None:
    assert [LOOKS[found] for found in look([np.full_like(pixels, 7), pixels])] == ["black", kind]


def test_many_are_said_and_few_are_not() -> None:
    found = BlankImages(images=100, looks={"black": Seen(5, ["a", "b"]), "white": Seen(4, ["c"])})
    found.contents = {b"1": Seen(2, ["d", "e"]), b"2": Seen(30, ["f"])}
    record = json.loads(json.dumps(found.record()))
    assert record["kinds"]["white"] == {"count": 4, "first": ["c"]}
    assert [(said, first) for said, _, first in many(record)] == [
        ("5 of 100 images (5%) are nearly black", ["a", "b"]),
        ("30 of 100 images (30%) are the same file, byte by byte", ["f"]),
    ]
    assert list(many({"images": 10, "kinds": {"black": {"count": 2, "first": ["a"]}}})) == [], "two are not many"
    assert list(many({})) == [], "a record of before says nothing"


def test_workers_add_up() -> None:
    one, other = Pace(), Pace()
    for pace, name in ((one, "b"), (other, "a")):
        pace.blank.images = 10
        pace.blank.looks["black"] = Seen(2, [name])
        pace.blank.contents = {b"x": Seen(3, [name])}
    found = overall([pickle.loads(pickle.dumps(pace)) for pace in (one, other)]).blank.record()
    assert found["images"] == 20
    assert found["kinds"]["black"] == {"count": 4, "first": ["a", "b"]}
    assert found["kinds"]["equal"] == {"count": 6, "first": ["a", "b"]}
    assert one.blank.looks["black"].count == 2


def test_a_content_that_many_have_is_found_among_any_number_of_others() -> None:
    counter = ContentCounter(str)
    for start in range(0, 40_000, 64):
        numbers = range(start, start + 64)
        contents = [b"same" if number % 50 == 0 else number.to_bytes(16, "big") for number in numbers]
        counter.add(contents, [f"{number:05}" for number in numbers])
    assert counter.most()[b"same"].count == 800
    assert len(counter.most()) == 1


def test_history_of_before_is_read() -> None:
    numbers = dict.fromkeys(
        ("version", "started", "ended", "listed", "ok", "failed", "skipped", "computed", "new", "changed", "gone"), 1
    )
    assert Record.load({**numbers, "status": "finished", "seconds": 1, "images_per_second": 1}).blank == {}


@pytest.mark.slow
def test_a_run_says_it_and_the_next_one_still_knows(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(20):
        Image.fromarray(noise(0, 255)).save(photos / f"photo{number:02}.png")
    for number in range(4):
        Image.fromarray(noise(0, 9)).save(photos / f"night{number}.png")
        shutil.copy(photos / "photo00.png", photos / f"again{number}.png")
    aged(photos)
    out = tmp_path / "out"
    ended = embed(photos, out)
    assert ended.code == 0, ended
    night = "4 of 28 images (14%) are nearly black (night0.png, night1.png, night2.png, night3.png)"
    assert f"  {night}\n" in ended.out
    assert "5 of 28 images (18%) are the same file, byte by byte (again0.png, again1.png, " in ended.out
    summary = json.loads((out / "summary.json").read_text())
    assert summary["blank"]["kinds"]["black"]["count"] == 4
    page = " ".join(harmless((out / "report.html").read_text()).text)
    assert "Look at these images: a model has an answer for each" in page
    again = embed(photos, out)
    assert "nearly black" not in again.out, "it computed nothing"
    page = " ".join(harmless((out / "report.html").read_text()).text)
    assert "Look at these images of the run that ended" in page
    assert "4 of 28 images (14%) are nearly black night0.png" in page
