"""Landmarks: points of each object, of a toy detector that has them, from the command to pages and other programs."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import TESTS, aged, errors, exact, here, kill, parts, rows, run, started, until
from page_parser import harmless
from PIL import Image
from pycocotools.coco import COCO

import cvjobs.networks.families
from cvjobs.common.categories import landmarks
from cvjobs.dataset import schema, snapshot
from cvjobs.html import palette
from cvjobs.networks.detection.detector import mirrored
from cvjobs.storage.local_store import LocalStore

pytestmark = pytest.mark.slow

TOYS = [sys.executable, str(TESTS / "with_toys.py")]
NAMES = ["right eye", "left eye", "nose", "right corner of the mouth", "left corner of the mouth"]
PLACES = ((0.3, 0.3), (0.7, 0.3), (0.5, 0.5), (0.35, 0.75), (0.65, 0.8))  # of the toy's points in a box
LIGHT = {"a.png": (20, 30, 80, 90), "b.png": (110, 10, 150, 60)}  # x0, y0, x1, y1
TRUTH = {
    "images": [{"id": at, "file_name": name, "width": 160, "height": 120} for at, name in enumerate(LIGHT)],
    "annotations": [
        {"id": at + 1, "image_id": at, "category_id": 0, "bbox": [x, y, r - x, b - y], "area": 1, "iscrowd": 0}
        for at, (x, y, r, b) in enumerate(LIGHT.values())
    ],
    "categories": [{"id": 0, "name": "face"}],
}


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    path = [*cvjobs.networks.families.__path__, str(TESTS / "toys" / "families")]
    monkeypatch.setattr("cvjobs.networks.families.__path__", path)


def picture(file: Path, light: tuple[int, int, int, int] | None) -> None:
    pixels = np.zeros((120, 160, 3), np.uint8)
    if light:
        pixels[light[1] : light[3], light[0] : light[2]] = 255
    Image.fromarray(pixels).save(file)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name, light in {**LIGHT, "dark.png": None}.items():
        picture(folder / name, light)
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return aged(folder)


def detect(source: Path, out: Path, *words: object) -> dict[str, Any]:
    ended = here("detect", source, "-o", out, "--model", "faces/toy", "--json", "--max-error-rate", 0.5, *words)
    assert ended.code == 0, ended
    found: dict[str, Any] = json.loads(ended.out)
    return found


def points(out: Path) -> dict[str, list[list[tuple[float, float]]]]:
    """The landmarks of each detection, by path."""
    return {
        row["path"]: [[(point["x"], point["y"]) for point in found["landmarks"]] for found in row["detections"]]
        for row in rows(out).to_pylist()
    }


def test_landmarks_are_in_pixels_of_the_picture_night_after_night(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert detect(source, out)["computed"] == 4
    assert rows(out).schema.field("detections").type.value_type == schema.MARKED_DETECTION
    assert landmarks(snapshot.latest(LocalStore(out)).facts) == NAMES
    found = points(out)
    assert found.pop("dark.png") == []
    for name, (x0, y0, x1, y1) in LIGHT.items():
        expected = [(x0 + x * (x1 - x0), y0 + y * (y1 - y0)) for x, y in PLACES]
        assert np.abs(np.array(found[name][0]) - expected).max() < 2.5, name
    assert errors(out)["path"].to_pylist() == ["bad.png"]
    assert detect(source, out)["computed"] == 0
    picture(source / "new.png", (5, 5, 60, 60))
    assert detect(aged(source), out)["computed"] == 1
    assert len(points(out)["new.png"][0]) == 5
    exact(out, source, 5)


def test_a_mirrored_look_calls_left_what_is_left(source: Path, tmp_path: Path) -> None:
    """The toy likes what is to the left more, so of ``b.png`` the mirrored look is kept."""
    assert mirrored(NAMES) == [1, 0, 2, 4, 3]
    detect(source, tmp_path / "out", "--tta", "flip")
    x0, y0, x1, y1 = LIGHT["b.png"]
    places = ((0.3, 0.3), (0.7, 0.3), (0.5, 0.5), (0.35, 0.8), (0.65, 0.75))
    expected = [(x0 + x * (x1 - x0), y0 + y * (y1 - y0)) for x, y in places]
    found = points(tmp_path / "out")["b.png"]
    assert len(found) == 1
    assert np.abs(np.array(found[0]) - expected).max() < 2.5


def test_pictures_and_the_page_show_them(source: Path, tmp_path: Path) -> None:
    out, drawn = tmp_path / "out", tmp_path / "drawn"
    detect(source, out, "--save-images", drawn)
    with Image.open(drawn / "a.png.jpg") as image:
        for x, y in points(out)["a.png"][0]:
            colour = np.asarray(image.convert("RGB"))[round(y), round(x)]
            assert np.abs(colour.astype(int) - palette.rgb(0)).max() < 60, (x, y)
    page = harmless((out / "report.html").read_text())
    assert sum(name == "circle" for name, _ in page.elements) == 2 * len(NAMES)
    assert detect(source, out)["computed"] == 0  # and the pictures that are kept are read again
    page = harmless((out / "report.html").read_text())
    assert sum(name == "circle" for name, _ in page.elements) == 2 * len(NAMES)


def test_other_programs_read_them_where_the_format_has_a_place(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    detect(source, out)
    expected = {path: found[0] for path, found in points(out).items() if found}
    for name in ("coco", "csv", "jsonl", "yolo"):
        assert here("export", out, "--format", name, "-o", tmp_path / f"found.{name}").code == 0
    coco = COCO(str(tmp_path / "found.coco"))
    assert coco.loadCats(0)[0]["keypoints"] == NAMES
    for one in coco.loadAnns(coco.getAnnIds()):
        spots = expected[coco.loadImgs(one["image_id"])[0]["file_name"]]
        assert one["keypoints"] == [value for x, y in spots for value in (x, y, 2)]
        assert one["num_keypoints"] == len(NAMES)
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert {line["path"]: len(line["detections"]) for line in lines} == {"a.png": 1, "b.png": 1, "dark.png": 0}
    nose = next(line["detections"][0]["landmarks"][2] for line in lines if line["path"] == "a.png")
    assert nose == pytest.approx(dict(zip("xy", expected["a.png"][2], strict=True)))
    assert "landmark" not in (tmp_path / "found.csv").read_text()
    assert len((tmp_path / "found.yolo" / "labels" / "a.txt").read_text().split()) == 5
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    for predictions in (out, tmp_path / "found.jsonl"):
        ended = here("eval", predictions, tmp_path / "truth.json", "--json")
        assert ended.code == 0, ended
        assert json.loads(ended.out)["metrics"]["AP50"] == 1.0


def test_models_without_them_have_the_columns_that_they_had() -> None:
    for task, columns in schema.SCHEMAS.items():
        assert schema.of_task({"task": task}) == columns
    assert schema.of_task({"task": "instance", "landmarks": NAMES}) == schema.SCHEMAS["instance"]


@pytest.mark.faults(minutes=0.5)
def test_a_killed_command_goes_on(source: Path, tmp_path: Path) -> None:
    for number in range(300):
        picture(source / f"{number}.png", (number % 90, 20, number % 90 + 40, 70))
    aged(source)
    words = ["detect", str(source), "-o", str(tmp_path / "out"), "--model", "faces/toy"]
    for _ in range(2):
        before = parts(tmp_path / "out")
        with started([*TOYS, *words]) as process:
            until(lambda: parts(tmp_path / "out") > before or process.poll() is not None)  # noqa: B023
            kill(process, signal.SIGKILL)
    assert run(*words, program=TOYS).code == 0
    exact(tmp_path / "out", source, 304)
    assert detect(source, tmp_path / "whole")["computed"] == 304
    assert points(tmp_path / "out") == points(tmp_path / "whole")
