"""The page of detections, masks and labels: what it shows, and what a quiet night costs."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from commands import aged
from page_parser import Page, harmless
from PIL import Image
from predictions import CATEGORIES, Rows, detection, output
from pycocotools import mask as coco

from cvjobs.clusters.allowance import Allowance
from cvjobs.common import categories as common_categories
from cvjobs.common.categories import Category
from cvjobs.common.fingerprint import digest
from cvjobs.config.options import BatchOptions
from cvjobs.config.spending import Spending
from cvjobs.dataset import schema, snapshot
from cvjobs.dataset.changes import Plan
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform
from cvjobs.networks import licences
from cvjobs.networks.licences import Licence
from cvjobs.prediction import run as prediction_run
from cvjobs.prediction.context import Context, Resolved
from cvjobs.prediction.engine.task import Columns
from cvjobs.prediction.engine.throughput import Pace
from cvjobs.prediction.placement import HERE, Placement
from cvjobs.prediction.report import result_pictures
from cvjobs.prediction.report.run_page import Run, leave
from cvjobs.sources.listing import list_source
from cvjobs.storage.local_store import LocalStore

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time enough for every picture, however busy the machine is."""
    monkeypatch.setattr(result_pictures, "DRAWING", 60.0)
    monkeypatch.setattr(result_pictures, "READING", 60.0)


@pytest.fixture(scope="module")
def decoder_server() -> Iterator[DecoderServer]:
    with closing(DecoderServer()) as warm:
        warm.start()
        yield warm


def report(
    out: Path, source: Path, task: str, decoder_server: DecoderServer, idle: bool = False, status: str = "finished"
) -> Page:
    """Leave the page of a run on an output, and take it apart."""
    store = LocalStore(out)
    base, listing = snapshot.latest(store), list_source(str(source))
    facts = base.facts or {"model": "toy", **common_categories.facts(task, CATEGORIES)}
    context = Context(
        options=BatchOptions(source=str(source), out=str(out)),
        storage={},
        job=Toy(task),
        resolved=ToyResolved(task, facts),
        store=store,
        listing=listing,
        fingerprint=digest(facts),
        schema=pa.schema([]),
        decoder="cvjobs.images.decode:decode",
        decoder_server=decoder_server,
        allowance=Allowance(Spending(), lambda: 0.0),
        placement=HERE,
    )
    none = listing.images["image_id"].combine_chunks().slice(0, 0)
    run = Run(status=status, pace=Pace(answered=0 if idle else base.wanted))
    run.plan = Plan(
        todo=listing.images.slice(0, 0 if idle else None),
        failures=listing.failures.slice(0, 0),
        reused=0,
        left=0,
        void=none,
        settled=none,
        outdated=none,
        failed_before=0,
        gone=0,
    )
    leave(context, run, base, prediction_run._summary(context, base, run.plan, run))
    return harmless((out / schema.REPORT).read_text())


def folder(root: Path, count: int, size: tuple[int, int] = (64, 48)) -> Path:
    root.mkdir(exist_ok=True)
    for number in range(count):
        Image.new("RGB", size, (number * 3 % 256, 99, 150)).save(root / f"{number:04}.png")
    return aged(root)


def drawn(page: Page, tag: str) -> int:
    return sum(name == tag and "column" not in str(a.get("class")) for name, a in page.elements)


def after(page: Page, text: str) -> str:
    return page.text[page.text.index(text) - 1]


def test_masks_are_drawn_and_names_are_harmless(tmp_path: Path, decoder_server: DecoderServer) -> None:
    source = folder(tmp_path / "photos", 3)
    mask = np.zeros((48, 64), np.uint8, order="F")
    mask[10:30, 10:40] = 1
    rle = coco.encode(mask)["counts"].decode()
    shapes = [{**detection(10, 10, 40, 30, 0.8, 2), "rle": rle}, {**detection(0, 0, 5, 5, 0.3, 7), "rle": "garbage~"}]
    rows: Rows = [
        {"path": f"{n:04}.png", "width": 64, "height": 48, "detections": shapes if n else []} for n in range(3)
    ]
    page = report(
        output(tmp_path / "out", "instance", CATEGORIES, rows, source=source), source, "instance", decoder_server
    )
    assert after(page, "detections") == "4"
    assert after(page, "without a detection") == "1"
    assert after(page, "classes seen") == "2 of 3"
    assert drawn(page, "rect") == 4
    assert sum("data:image/png" in str(a.get("src")) for _, a in page.elements) == 2
    assert {"<script>dog</script>", "line\\x0abreak"} <= set(page.text)


def test_class_maps_are_drawn_and_a_damaged_one_costs_only_itself(
    tmp_path: Path, decoder_server: DecoderServer
) -> None:
    source = folder(tmp_path / "photos", 3)
    ids = np.zeros((48, 64), np.uint8)
    ids[24:] = 7
    file = io.BytesIO()
    Image.fromarray(ids).save(file, "PNG")
    areas = [{"category_id": i, "label": "x", "pixels": 1536} for i in (0, 7)]
    maps = [file.getvalue(), file.getvalue()[:60], b""]
    rows: Rows = [
        {"path": f"{n:04}.png", "width": 64, "height": 48, "class_map": png, "classes": areas}
        for n, png in enumerate(maps)
    ]
    page = report(
        output(tmp_path / "out", "semantic", CATEGORIES, rows, source=source), source, "semantic", decoder_server
    )
    assert after(page, "of all pixels have a class") == "50%"
    assert page.text.count("50% · 1 class") == 3
    assert sum("data:image/png" in str(a.get("src")) for _, a in page.elements) == 1
    assert page.text[page.text.index("Share of all pixels by class") :][1:3] == ["line\\x0abreak", "50.0%"]


def test_labels_are_shown_with_what_came_next(tmp_path: Path, decoder_server: DecoderServer) -> None:
    source = folder(tmp_path / "photos", 2)
    top = [{"label": "<script>dog</script>", "score": 0.75}, {"label": "cat", "score": 0.2}]
    rows: Rows = [
        {"path": "0000.png", "width": 64, "height": 48, "label": top[0]["label"], "score": 0.75, "top": top},
        {"path": "0001.png", "width": 64, "height": 48, "label": None, "score": None, "top": []},
    ]
    page = report(
        output(tmp_path / "out", "classify", CATEGORIES, rows, source=source), source, "classify", decoder_server
    )
    at = page.text.index("cat 0.20")
    assert page.text[at - 2 : at] == ["<script>dog</script>", "0.75"]
    assert after(page, "without a label") == "1"
    assert "no label" in page.text


def test_a_thousand_images_of_a_hundred_detections_are_a_small_page(
    slow_photos: Path, tmp_path: Path, decoder_server: DecoderServer
) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    originals = sorted(slow_photos.iterdir())[:8]
    for number in range(1000):
        os.link(originals[number % 8], source / f"{number:04}.png")
    random = np.random.default_rng(0)
    rows: Rows = [
        {
            "path": f"{number:04}.png",
            "width": 640,
            "height": 480,
            "detections": [
                detection(x, y, x + 90, y + 60, s, int(c))
                for x, y, s, c in random.uniform((0, 0, 0, 1), (550, 420, 1, 91), (100, 4)).tolist()
            ],
        }
        for number in range(1000)
    ]
    categories = [Category(i, f"class number {i}") for i in range(1, 91)]
    page = report(output(tmp_path / "out", "detect", categories, rows, source=source), source, "detect", decoder_server)
    assert (tmp_path / "out" / schema.REPORT).stat().st_size < 3_000_000
    assert after(page, "detections") == "100,000"
    assert after(page, "classes seen") == "90 of 90"
    assert any(text.startswith("and 70 more classes: ") for text in page.text)


def test_a_source_that_is_gone_costs_the_pictures_alone(tmp_path: Path, decoder_server: DecoderServer) -> None:
    source = folder(tmp_path / "photos", 4)
    rows: Rows = [
        {"path": f"{n:04}.png", "width": 64, "height": 48, "detections": [detection(1, 1, 30, 30, 0.5)]}
        for n in range(4)
    ]
    out = output(tmp_path / "out", "detect", CATEGORIES, rows, source=source)
    for image in list(source.iterdir())[:3]:
        image.unlink()
    page = report(out, source, "detect", decoder_server)
    assert page.text.count("read vanished") == 3
    assert after(page, "detections") == "4"
    assert drawn(page, "rect") == 1


@pytest.mark.parametrize("status", ["stopped", "failed", "finished"])
def test_a_run_without_any_result_has_a_page(tmp_path: Path, decoder_server: DecoderServer, status: str) -> None:
    page = report(tmp_path / "out", folder(tmp_path / "photos", 1), "detect", decoder_server, status=status)
    assert f"No image has a result{'' if status == 'finished' else ' yet'}." in page.text


def test_a_remedy_keeps_its_capitals_and_what_was_answered_twice_counts_once(
    tmp_path: Path, decoder_server: DecoderServer
) -> None:
    source = folder(tmp_path / "photos", 2)
    found: Rows = [
        {"path": "0000.png", "width": 64, "height": 48, "detections": [detection(1, 1, 30, 30, 0.5)]},
        {"path": "0001.png", "error": "infer_nonfinite"},
    ]
    out = output(tmp_path / "out", "detect", CATEGORIES, found, source=source)
    (source / "0001.png").unlink()
    page = report(out, source, "detect", decoder_server)  # two answers, of which one image was to be computed
    assert "The model returned NaN or infinity: try --precision fp32." in page.text
    assert after(page, "computed by this run") == "1"


# Nights, through the whole command.


@dataclass(frozen=True)
class ToyResolved:
    """One detection for every image that is bright enough: over all of it, its score the brightness of its red."""

    task: str
    facts: dict[str, Any]
    device: str = "cpu"
    title: str = "toy"
    licence: Licence = licences.UNSAID

    @property
    def transform(self) -> Transform:
        return Transform(size=(4, 4), fit="exact")

    @property
    def results(self) -> pa.Schema:
        return schema.SCHEMAS[self.task]

    def open(self) -> ToyStep:
        return ToyStep()

    def as_dict(self) -> dict[str, Any]:
        return {}

    def placed(self, placement: Placement) -> Resolved:
        del placement
        return self


class ToyStep:
    """See ``ToyResolved``."""

    def __call__(self, pixels: Pixels) -> Columns:
        scores = (pixels[..., 0].mean(axis=(1, 2)) / 255).tolist()
        found = [[detection(4, 4, 60, 44, s, 1 + (s > 0.5))] if s > 0.1 else [] for s in scores]
        return Columns([pa.array(found, schema.SCHEMAS["detect"].field(0).type)], {})


@dataclass
class Toy:
    """The job of ``ToyResolved``."""

    command: str

    def resolve(self, earlier: Mapping[str, Any], placement: Placement) -> Resolved:
        del earlier, placement
        facts = {"model": "toy", **common_categories.facts("detect", CATEGORIES)}
        return ToyResolved("detect", facts)


def kept(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / name).read_text())
    return found


def test_nights_read_only_what_is_new_and_one_with_nothing_to_do_shows_the_same(tmp_path: Path) -> None:
    source, out = folder(tmp_path / "photos", 60), tmp_path / "out"
    pages = []
    for night in range(3):
        if night == 1:
            for number in range(5):
                Image.new("RGB", (64, 48), (250, 9, 9)).save(source / f"new{number}.png")
            (source / "0059.png").unlink()
            aged(source)
        if night == 2:
            before = (out / schema.STATISTICS).stat().st_mtime_ns, (out / schema.PICTURES).stat().st_mtime_ns
        prediction_run.run(BatchOptions(source=str(source), out=str(out)), Toy("detect"))
        pages.append(harmless((out / schema.REPORT).read_text()))
    first, second, third = pages
    assert after(first, "detections") == "51"
    assert after(first, "without a detection") == "9"
    assert drawn(first, "img") == 28
    assert after(second, "detections") == "55"
    at = second.text.index("<script>dog</script>", second.text.index("Detections by class"))
    assert second.text[at + 1 : at + 3] == ["21", "+4"]
    row = second.text.index("detections", second.text.index("Since the run before"))
    assert second.text[row + 1 : row + 4] == ["51", "55", "+4"]
    assert drawn(third, "img") == drawn(second, "img") == 28
    assert "0059.png" not in third.text
    assert before == ((out / schema.STATISTICS).stat().st_mtime_ns, (out / schema.PICTURES).stat().st_mtime_ns)
    files = {file.name for file in snapshot.latest(LocalStore(out)).results}
    assert set(kept(out, schema.STATISTICS)["files"]) == files
    assert {picture["file"] for picture in kept(out, schema.PICTURES)["pictures"]} <= files


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"format": 1, "task": "detect", "files": {"a": 3}}'])
def test_what_is_kept_and_makes_no_sense_is_made_anew(
    tmp_path: Path, decoder_server: DecoderServer, content: str
) -> None:
    source = folder(tmp_path / "photos", 2)
    rows: Rows = [
        {"path": f"{n:04}.png", "width": 64, "height": 48, "detections": [detection(1, 1, 30, 30, 0.5)]}
        for n in range(2)
    ]
    out = output(tmp_path / "out", "detect", CATEGORIES, rows, source=source)
    for name in (schema.STATISTICS, schema.PICTURES):
        (out / name).write_text(content)
    page = report(out, source, "detect", decoder_server)
    assert drawn(page, "rect") == 2
    assert kept(out, schema.STATISTICS)["files"].keys() == {f.name for f in snapshot.latest(LocalStore(out)).results}
