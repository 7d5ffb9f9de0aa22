"""Exports: what the formats' own readers find in them is what the rows say, for any names; nothing is half written."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import exported
import numpy as np
import pyarrow as pa
import pytest
from commands import run
from exported import CLASSES, NAMES, STRANGE, masked, read
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from predictions import CATEGORIES, output
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import cvjobs
from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.dataset import schema
from cvjobs.dataset.export import formats
from cvjobs.dataset.exports.csv import harmless, named
from cvjobs.images.masks import rle


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported.boxes(tmp_path_factory.mktemp("boxes") / "out")


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported.masks(tmp_path_factory.mktemp("masks") / "out")


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = []
    for n in range(3):
        pixels = np.random.default_rng(n).choice(np.array([0, 1, 90], np.uint8)[: n + 1], (40, 60))
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        ids, counts = np.unique(pixels[pixels > 0], return_counts=True)
        classes = [
            {"category_id": int(i), "label": NAMES[int(i)], "pixels": int(c)} for i, c in zip(ids, counts, strict=True)
        ]
        about = {"path": f"{n}.png", "width": 60, "height": 40}
        rows.append({**about, "class_map": buffer.getvalue(), "classes": classes})
    return output(tmp_path_factory.mktemp("maps") / "out", "semantic", CLASSES, rows)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {"path": f"{n}.jpg", "width": 8, "height": 6, "label": "=dog", "score": 0.6, "top": guesses}
        for n, guesses in enumerate([[{"label": "=dog", "score": 0.6}, {"label": "cat", "score": 0.1}]] * 2)
    ]
    return output(tmp_path_factory.mktemp("labels") / "out", "classify", CLASSES, rows, facts={"top": 2})


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
class TestCoco:
    """COCO's file, read with COCO's API."""

    def test_boxes(self, boxes: Path, tmp_path: Path) -> None:
        done = cvjobs.export(boxes, tmp_path / "coco.json", format="coco")
        api = COCO(str(tmp_path / "coco.json"))
        rows = read(boxes)
        total = sum(len(row["detections"]) for row in rows.values())
        assert (done.images, done.failed, done.written) == (len(STRANGE), 1, total)
        assert [i["file_name"] for i in sorted(api.dataset["images"], key=lambda i: i["id"])] == sorted(
            STRANGE, key=str.encode
        )
        assert sorted(api.imgs) == [*range(1, len(STRANGE) + 1)]
        assert sorted(api.anns) == [*range(1, total + 1)]
        assert {c["id"]: c["name"] for c in api.dataset["categories"]} == NAMES
        for number, image in api.imgs.items():
            row = rows[image["file_name"]]
            assert (image["width"], image["height"]) == (row["width"], row["height"])
            theirs = api.loadAnns(api.getAnnIds(imgIds=number))
            for one, ours in zip(theirs, row["detections"], strict=True):
                width, height = ours["x1"] - ours["x0"], ours["y1"] - ours["y0"]
                assert one["bbox"] == [ours["x0"], ours["y0"], width, height]
                assert (one["category_id"], one["score"]) == (ours["category_id"], ours["score"])
                assert (one["area"], one["iscrowd"]) == (width * height, 0)

    def test_its_annotations_are_results_too(self, boxes: Path, tmp_path: Path) -> None:
        cvjobs.export(boxes, tmp_path / "coco.json", format="coco")
        truth = COCO(str(tmp_path / "coco.json"))
        evaluation = COCOeval(truth, truth.loadRes(truth.dataset["annotations"]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1)

    def test_masks(self, masks: Path, tmp_path: Path) -> None:
        cvjobs.export(masks, tmp_path / "coco.json", format="coco", category_ids="contiguous")
        api = COCO(str(tmp_path / "coco.json"))
        assert {c["id"]: c["name"] for c in api.dataset["categories"]} == dict(enumerate(NAMES.values(), 1))
        rows = read(masks)
        compared = 0
        for number, image in api.imgs.items():
            theirs = api.loadAnns(api.getAnnIds(imgIds=number))
            for one, ours in zip(theirs, rows[image["file_name"]]["detections"], strict=True):
                mask = api.annToMask(one)
                assert np.array_equal(mask, rle.decode(ours["rle"], 480, 640))
                assert mask.sum() == one["area"] > 0
                assert NAMES[ours["category_id"]] == api.cats[one["category_id"]]["name"]
                compared += 1
        assert compared == 12

    def test_class_maps(self, maps: Path, tmp_path: Path) -> None:
        assert cvjobs.export(maps, tmp_path / "coco.json", format="coco").written == 3
        api = COCO(str(tmp_path / "coco.json"))
        rows = read(maps)
        for number, image in api.imgs.items():
            row = rows[image["file_name"]]
            with Image.open(io.BytesIO(row["class_map"])) as picture:
                pixels = np.asarray(picture)
            theirs = api.loadAnns(api.getAnnIds(imgIds=number))
            assert {one["category_id"] for one in theirs} == set(np.unique(pixels)) - {0}
            for one in theirs:
                assert np.array_equal(api.annToMask(one), pixels == one["category_id"])
                assert one["area"] == (pixels == one["category_id"]).sum()
                assert one["bbox"] == coco_masks.toBbox(one["segmentation"]).tolist()

    def test_it_names_the_snapshot(self, boxes: Path, tmp_path: Path) -> None:
        cvjobs.export(boxes, tmp_path / "coco.json", format="coco")
        made = json.loads((tmp_path / "coco.json").read_text())["info"]["cvjobs"]
        base = cvjobs.open(str(boxes)).snapshot
        assert (made["snapshot"], made["fingerprint"], made["failed"]) == (base.version, base.fingerprint, 1)


class TestCsv:
    """CSV, read with Python's own reader."""

    def lines(self, out: Path, to: Path) -> list[dict[str, str]]:
        done = cvjobs.export(out, to, format="csv")
        with to.open(newline="") as file:
            lines = list(csv.DictReader(file, strict=True))
        assert done.written == len(lines)
        assert to.read_bytes().count(b"\r\n") >= len(lines) + 1
        return lines

    def test_every_box_and_every_image_without_one(self, boxes: Path, tmp_path: Path) -> None:
        lines = self.lines(boxes, tmp_path / "out.csv")
        assert list(lines[0])[:6] == ["path", "width", "height", "id", "'=note", "category_id"]
        by_path: dict[str, list[dict[str, str]]] = {}
        for line in lines:
            by_path.setdefault(line["path"], []).append(line)
        rows = read(boxes)
        assert set(by_path) == {named(path) for path in rows}
        for path, row in rows.items():
            some = by_path[named(path)]
            assert {line["id"] for line in some} == {str(row["id"])}
            assert {line["'=note"] for line in some} == {f"'+{row['id']}"}
            if not row["detections"]:
                assert [line["label"] + line["score"] + line["x0"] for line in some] == [""]
                continue
            for line, box in zip(some, row["detections"], strict=True):
                assert line["label"] == named(box["label"])
                assert int(line["category_id"]) == box["category_id"]
                for name in ("x0", "y0", "x1", "y1", "score"):
                    assert np.float32(line[name]) == np.float32(box[name])

    def test_areas(self, masks: Path, maps: Path, tmp_path: Path) -> None:
        for line in self.lines(masks, tmp_path / "masks.csv"):
            assert 200 < int(line["area"]) < 400
        lines = self.lines(maps, tmp_path / "maps.csv")
        counted = [(line["path"], line["category_id"], line["pixels"]) for line in lines]
        expected = [
            (path, str(one["category_id"]), str(one["pixels"]))
            for path, row in read(maps).items()
            for one in row["classes"] or [{"category_id": "", "pixels": ""}]
        ]
        assert sorted(counted) == sorted(expected)

    def test_labels(self, labels: Path, tmp_path: Path) -> None:
        assert self.lines(labels, tmp_path / "out.csv") == [
            {
                "path": f"{n}.jpg",
                "width": "8",
                "height": "6",
                "label": "'=dog",
                "score": "0.6",
                "label_2": "cat",
                "score_2": "0.1",
            }
            for n in range(2)
        ]

    @given(st.text("=+-@＝＋－＠\t\r\n \u00a0'\"a,1"))  # noqa: RUF001
    def test_no_text_is_a_formula_and_none_is_lost(self, text: str) -> None:
        cell = harmless(text)
        assert not cell.lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠"))  # noqa: RUF001
        assert not cell.startswith(("\t", "\r", "\n"))
        assert cell.removeprefix("'") == text

    def test_numbers_stay_numbers(self) -> None:
        assert [harmless(value) for value in (-1, -0.5, None, True)] == [-1, -0.5, "", "true"]


class TestJsonl:
    """One JSON object a line."""

    def lines(self, out: Path, to: Path) -> dict[str, dict[str, Any]]:
        cvjobs.export(out, to, format="jsonl")
        lines = [json.loads(line, parse_constant=pytest.fail) for line in to.read_text().splitlines()]
        return {line["path"]: line for line in lines}

    def test_all_of_a_row(self, boxes: Path, tmp_path: Path) -> None:
        lines, rows = self.lines(boxes, tmp_path / "out.jsonl"), read(boxes)
        assert set(lines) == set(rows)
        for path, line in lines.items():
            assert (line["id"], line["=note"]) == (rows[path]["id"], rows[path]["=note"])
            assert bytes.fromhex(line["image_id"]) == rows[path]["image_id"]
            assert line["modified"] == "1970-01-01T00:00:00.000000000Z"
            for one, box in zip(line["detections"], rows[path]["detections"], strict=True):
                assert {n: np.float32(v) if isinstance(v, float) else v for n, v in one.items()} == box

    def test_masks_are_there_and_class_maps_are_not(self, masks: Path, maps: Path, tmp_path: Path) -> None:
        lines = self.lines(masks, tmp_path / "masks.jsonl")
        assert [one["rle"] for one in lines["0.jpg"]["detections"]] == [one["rle"] for one in masked(0)]
        lines = self.lines(maps, tmp_path / "maps.jsonl")
        assert lines["1.png"]["classes"] == read(maps)["1.png"]["classes"]
        assert "class_map" not in lines["1.png"]

    @pytest.mark.parametrize("task", ["detect", "instance", "classify", ""])
    def test_a_lists_own_column_has_any_name(self, tmp_path: Path, task: str) -> None:
        columns = None if task else pa.schema([pa.field("embedding", pa.list_(pa.float32(), 2))])
        taken = (columns or schema.SCHEMAS[task]).names
        own = [name for name in ("class_map", "classes", "detections", "top", "pixels") if name not in taken]
        row = {"path": "a.jpg", "width": 1, "height": 1, "detections": [], **{name: f"of {name}" for name in own}}
        carried = pa.schema([(name, pa.string()) for name in own])
        out = output(tmp_path / "out", task, CATEGORIES, [row], carried=carried, schema=columns)
        (line,) = self.lines(out, tmp_path / "out.jsonl").values()
        assert {name: line[name] for name in own} == {name: f"of {name}" for name in own}
        if task:
            cvjobs.export(out, tmp_path / "out.csv", format="csv")
            (line, *_) = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
            assert {name: line[name] for name in own} == {name: f"of {name}" for name in own}

    def test_vectors(self, vectors: Path, tmp_path: Path) -> None:
        lines = self.lines(vectors, tmp_path / "out.jsonl")
        assert lines["a.jpg"]["embedding"] == [0.1, 2.0]
        assert lines["b.jpg"]["embedding"] == [None, 1e-7]  # JSON has no NaN

    def test_its_origin_is_beside_it(self, boxes: Path, tmp_path: Path) -> None:
        cvjobs.export(boxes, tmp_path / "out.jsonl", format="jsonl")
        origin = json.loads((tmp_path / "out.jsonl.origin.json").read_text())
        assert (origin["snapshot"], origin["file"]) == (1, "out.jsonl")
        assert origin["bytes"] == (tmp_path / "out.jsonl").stat().st_size


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    schema = pa.schema([pa.field("embedding", pa.list_(pa.field("item", pa.float32()), 2))])
    rows = [{"path": f"{name}.jpg", "width": 1, "height": 1} for name in "ab"]
    for row, vector in zip(rows, ([0.1, 2], [np.nan, 1e-7]), strict=True):
        row["embedding"] = vector
    out = tmp_path_factory.mktemp("vectors") / "out"
    return output(out, "", [], rows, schema=schema)


class TestWrongUse:
    """What cannot be exported, and where it cannot go."""

    @pytest.mark.parametrize(
        ("kind", "name", "sentence"),
        [
            ("labels", "coco", "holds labels, for which coco has no place: choose --format csv or jsonl"),
            ("labels", "yolo", "holds labels, for which yolo has no place"),
            ("maps", "yolo", "holds class maps, .* choose --format coco or csv or jsonl"),
            ("vectors", "csv", "holds vectors, .* choose --format jsonl"),
            ("boxes", "cocoa", r"no format 'cocoa' \(nearest: coco\): choose from coco, "),
        ],
    )
    def test_a_format_without_a_place_for_it(
        self, request: pytest.FixtureRequest, tmp_path: Path, kind: str, name: str, sentence: str
    ) -> None:
        with pytest.raises(WrongUse, match=sentence):
            cvjobs.export(request.getfixturevalue(kind), tmp_path / "to", format=name)
        assert not any(tmp_path.iterdir())

    def test_a_folder_without_results(self, tmp_path: Path) -> None:
        with pytest.raises(WrongUse, match="holds no finished cvjobs output"):
            cvjobs.export(tmp_path, tmp_path / "to", format="coco")

    def test_category_ids_of_another_format(self, boxes: Path, tmp_path: Path) -> None:
        with pytest.raises(WrongUse, match="--category-ids is a matter of --format coco"):
            cvjobs.export(boxes, tmp_path / "to", format="csv", category_ids="coco")

    @pytest.mark.parametrize("name", ["coco", "yolo"])
    def test_a_place_within_the_output(self, boxes: Path, tmp_path: Path, name: str) -> None:
        (tmp_path / "link").symlink_to(boxes)
        for to in (boxes / "data" / "x", tmp_path / "link" / "_cvjobs", boxes / "x" / ".." / "errors"):
            with pytest.raises(WrongUse, match="is inside the output"):
                cvjobs.export(boxes, to, format=name)

    def test_a_folder_where_a_file_goes(self, boxes: Path, tmp_path: Path) -> None:
        for to in (f"{tmp_path}", f"{tmp_path}/"):
            with pytest.raises(WrongUse, match="is a folder: name a file"):
                cvjobs.export(boxes, to, format="csv")


@pytest.mark.parametrize("name", ["coco", "csv", "jsonl"])
def test_a_failed_export_leaves_the_old_file(masks: Path, tmp_path: Path, name: str) -> None:
    out = shutil.copytree(masks, tmp_path / "out")
    (part,) = (out / "data").iterdir()
    part.write_bytes(part.read_bytes()[:-200])
    (tmp_path / "to").write_text("old")
    with pytest.raises(JobFailed, match="is damaged"):
        cvjobs.export(out, tmp_path / "to", format=name)
    assert (tmp_path / "to").read_text() == "old"
    assert {p.name for p in tmp_path.iterdir()} == {"out", "to"}


def test_an_output_of_nothing(tmp_path: Path) -> None:
    out = output(tmp_path / "out", "instance", CLASSES, [{"path": "a.jpg", "error": "corrupt"}])
    for name in formats():
        done = cvjobs.export(out, tmp_path / name, format=name)
        assert (done.images, done.failed, done.written) == (0, 1, 0)
    assert not COCO(str(tmp_path / "coco")).imgs
    assert (tmp_path / "csv").read_text().count("\n") == 1


@pytest.mark.faults
@pytest.mark.parametrize("name", formats())
def test_memory_does_not_grow_with_the_images(tmp_path: Path, name: str) -> None:
    peaks = []
    code = (
        "import resource, sys, cvjobs\n"
        "cvjobs.export(sys.argv[1], sys.argv[2], format=sys.argv[3])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    objects = [masked(n) for n in range(7)]
    for count in (4_000, 20_000):
        rows = [{"path": f"{n}.jpg", "width": 640, "height": 480, "detections": objects[n % 7]} for n in range(count)]
        out = output(tmp_path / f"{count}", "instance", CLASSES, rows)
        ended = run(out, tmp_path / f"{count}.{name}", name, program=[sys.executable, "-c", code])
        assert ended.code == 0, ended
        peaks.append(int(ended.out))
    assert peaks[1] < 1.25 * peaks[0]
