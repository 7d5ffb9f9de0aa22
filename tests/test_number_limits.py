"""What each limit of numbers in a source, a list or a truth does: both sides are right, or refused by a sentence.

``pytest -s tests/test_number_limits.py`` prints the tables.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import here
from limit_tables import REFUSED, RIGHT, said, shown
from PIL import Image
from predictions import detection, output

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.evaluation.ground_truth import open as ground_truth_open
from cvjobs.html import palette
from cvjobs.images.masks import png, rle

NUMBERS = (2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64, 10**30)

SQUARE = [[2, 2, 12, 2, 12, 12, 2, 12]]
COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 20, "height": 20}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 10, 10], "area": 100, "segmentation": SQUARE}
    ],
}
# Where a number stands in the truth, and up to which it is right; from there on it is refused.
TRUTHS: dict[str, tuple[tuple[tuple[Any, ...], ...], int]] = {
    "image id": ((("images", 0, "id"), ("annotations", 0, "image_id")), 2**64),
    "annotation id": ((("annotations", 0, "id"),), 10**40),
    "category id": ((("categories", 0, "id"), ("annotations", 0, "category_id")), 2**62),
    "image width": ((("images", 0, "width"),), 2**62),
    "image height": ((("images", 0, "height"),), 2**62),
    "box x": ((("annotations", 0, "bbox", 0),), 0),
    "box width": ((("annotations", 0, "bbox", 2),), 0),
    "area": ((("annotations", 0, "area"),), 2**62),
    "polygon x": ((("annotations", 0, "segmentation", 0, 0),), 0),
    "run length": ((("annotations", 0, "segmentation"),), 0),
}
AS_COCO = 10**10  # the area from which on COCO's API counts no object


@pytest.fixture
def found(tmp_path: Path) -> Path:
    """Outputs of boxes, and of masks, that find one square."""
    one = detection(2, 2, 12, 12, 0.9)
    row = {"path": "a.jpg", "width": 20, "height": 20, "detections": [one]}
    output(tmp_path / "boxes", "detect", [Category(1, "cat")], [row])
    square = rle.encode(np.ones((10, 10), np.uint8), (2, 2), (20, 20))
    masked = {**row, "detections": [{**one, "rle": square}]}
    output(tmp_path / "masks", "instance", [Category(1, "cat")], [masked])
    return tmp_path


def ap(place: Path, truth: Path) -> Any:
    return cvjobs.eval(str(place), str(truth), out=str(truth.parent / "eval"))


@pytest.mark.slow
def test_numbers_of_a_coco_truth(found: Path) -> None:
    rows, wrong = [], []
    for what, (places, limit) in TRUTHS.items():
        for number in NUMBERS:
            truth = copy.deepcopy(COCO)
            for *way, key in places:
                inside: Any = truth
                for step in way:
                    inside = inside[step]
                inside[key] = {"size": [20, 20], "counts": [number, 5]} if what == "run length" else number
            (found / "t.json").write_text(json.dumps(truth))
            masked = "segmentation" in places[0]
            given = found / ("masks" if masked else "boxes")

            def right(given: Path = given, area: bool = what == "area", number: int = number) -> str:
                score = ap(given, found / "t.json").metrics["AP"]
                assert score == (-1 if area and number > AS_COCO else pytest.approx(1))
                return RIGHT

            outcome = said(right)
            rows.append((what, number, outcome))
            if outcome.startswith(RIGHT if number < limit else REFUSED) is False:
                wrong.append(rows[-1])
    shown("Numbers of COCO's JSON", rows)
    assert not wrong


def test_numbers_of_yolo_voc_and_masks(found: Path) -> None:
    rows, wrong = [], []

    def case(what: str, number: int, limit: int, right: Callable[[], str], words: str = "") -> None:
        outcome = said(right)
        rows.append((what, number, outcome))
        if not outcome.startswith(RIGHT if number < limit else REFUSED) or (number >= limit and words not in outcome):
            wrong.append(rows[-1])

    for folder in ("yolo", "voc"):
        (found / folder).mkdir()
    for number in NUMBERS:

        def classes(number: int = number) -> str:
            (found / "yolo/a.txt").write_text(f"1 0.35 0.35 0.5 0.5\n{number} 0.5 0.5 0.1 0.1\n")
            assert [c["id"] for c in ap(found / "boxes", found / "yolo").classes] == [1, number]
            return RIGHT

        def shares(number: int = number) -> str:
            (found / "yolo/a.txt").write_text(f"1 {number} 0.5 0.1 0.1\n")
            return RIGHT if ap(found / "boxes", found / "yolo") else ""

        def corners(number: int = number) -> str:
            box = f"<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>{number}</xmax><ymax>12</ymax></bndbox>"
            (found / "voc/a.xml").write_text(f"<annotation><object><name>cat</name>{box}</object></annotation>")
            return RIGHT if ap(found / "boxes", found / "voc") else ""

        case("YOLO class", number, 2**31, classes, f"has the class {number}: write a number")
        case("YOLO centre", number, 0, shares)
        case("VOC corner", number, 0, corners)
    shown("Numbers of YOLO and VOC", rows)
    assert not wrong


@pytest.mark.slow
def test_numbers_of_predictions_of_other_tools(found: Path) -> None:
    """COCO results and tables of boxes: what is no number of its column is refused, never taken for another."""
    rows, wrong = [], []
    (found / "t.json").write_text(json.dumps(COCO))
    square = rle.encode(np.ones((10, 10), np.uint8), (2, 2), (20, 20))
    result = {"image_id": 1, "category_id": 1, "bbox": [2, 2, 10, 10], "score": 0.5}
    box = {"x0": 2, "y0": 2, "x1": 12, "y1": 12, "score": 0.9, "category_id": 1}
    # Those whose number is right up to there; a class that the truth does not have is left out.
    limits = {"image_id": 2**64, "category_id": 2**62, "score": 2**62}
    tables = {"x0": 0, "x1": 0, "score": 10**40, "category_id": 2**53, "width": 10**40, "rle width": 0}
    for number in NUMBERS:
        for key, limit in {**limits, **{f"table {key}": at for key, at in tables.items()}}.items():

            def right(key: str = key, number: int = number) -> str:
                name = key.removeprefix("table ")
                if name == key:
                    file = found / "r.json"
                    file.write_text(json.dumps([{**result, "score": 0.9}, {**result, key: number}]))
                else:
                    file = found / "p.jsonl"
                    row: dict[str, Any] = {"path": "a.jpg", "width": 20, "height": 20}
                    if name == "rle width":
                        row |= {"width": number, "detections": [{**box, "rle": square}]}
                    else:
                        row |= {**box, name: number}
                    file.write_text(json.dumps(row))
                score = ap(file, found / "t.json").metrics["AP"]
                # The one detection of a table, of a class that the truth does not have, is left out.
                assert score == (0 if name != key and name == "category_id" else pytest.approx(1))
                return RIGHT

            outcome = said(right)
            rows.append((key, number, outcome))
            if not outcome.startswith(RIGHT if number < limit else REFUSED):
                wrong.append(rows[-1])
    shown("Numbers of predictions", rows)
    assert not wrong


def test_values_of_masks(found: Path) -> None:
    """A truth's PNG has at most 16 bits: 65,535 is a class, or by choice what does not count."""
    pixels = np.full((20, 20), 65535, np.uint16)
    pixels[10:] = 256
    (found / "pngs").mkdir()
    Image.fromarray(pixels).save(found / "pngs/a.png")
    truth = ground_truth_open.read(str(found / "pngs"), "semantic")
    row = {"path": "a.jpg", "width": 20, "height": 20, "class_map": png.encode(pixels), "classes": []}
    categories = [Category(at, f"c{at}") for at in (256, 65535)]
    output(found / "maps", "semantic", categories, [row])
    assert len(truth) == 1
    every = cvjobs.eval(str(found / "maps"), str(found / "pngs"), void="none")
    assert {c["id"]: c["pixels"] for c in every.classes} == {256: 200, 65535: 200}
    some = cvjobs.eval(str(found / "maps"), str(found / "pngs"), void="65535")
    assert some.as_dict()["ignored"] == {"value": 65535, "pixels": 200, "share": 0.5}
    with pytest.raises(WrongUse, match="a number from 0 to 65,535"):
        cvjobs.eval(str(found / "maps"), str(found / "pngs"), void="65536")
    assert palette.place(65535) == 65535 % len(palette.COLOURS)


@pytest.mark.slow
def test_own_columns_of_a_list_keep_their_numbers(tmp_path: Path) -> None:
    """What fits a column is carried; ``width``, ``height`` and ``bytes`` of a list are never taken for an image's."""
    Image.new("RGB", (9, 7)).save(tmp_path / "a.png")
    kinds = [pa.int64() if n < 2**63 else pa.uint64() if n < 2**64 else pa.decimal128(38) for n in NUMBERS]
    columns: dict[str, Any] = {"path": [str(tmp_path / "a.png")]}
    columns |= {f"n{at}": pa.array([n], kind) for at, (n, kind) in enumerate(zip(NUMBERS, kinds, strict=True))}
    columns |= {name: pa.array([2**63], pa.uint64()) for name in ("width", "height", "bytes", "frames")}
    pq.write_table(pa.table(columns), tmp_path / "l.parquet")
    words = [f"n{at}" for at in range(len(NUMBERS))]
    line = ",".join([columns["path"][0], *map(str, NUMBERS), *["9" * 30] * 3])
    (tmp_path / "l.csv").write_text(",".join(["path", *words, "width", "height", "bytes"]) + f"\n{line}\n")
    rows = []
    for name in ("l.parquet", "l.csv"):
        out = tmp_path / f"{name}.out"
        ended = here("embed", tmp_path / name, "-o", out, "--model", "thumbnail/8")
        assert ended.code == 0, ended
        assert here("export", out, "--format", "jsonl", "-o", tmp_path / "x.jsonl").code == 0
        row = json.loads((tmp_path / "x.jsonl").read_text())
        assert [int(row[word]) for word in words] == list(NUMBERS)
        assert (row["width"], row["height"]) == (9, 7)
        assert row["bytes"] == (tmp_path / "a.png").stat().st_size
        rows += [(f"own column of {name}", number, RIGHT) for number in NUMBERS]
    shown("Own columns", rows)
