"""Every format of a truth: what is read from it, and the one sentence about what cannot be."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from predictions import output
from trees import as_nobody, opened

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.evaluation.ground_truth import open as ground_truth_open
from cvjobs.evaluation.ground_truth.types import ObjectTruth
from cvjobs.images.masks import rle

CATEGORIES = [Category(1, "cat"), Category(2, "dog")]
BOX = {"x0": 10.0, "y0": 20.0, "x1": 60.0, "y1": 80.0, "score": 0.9, "category_id": 2, "label": "dog"}
VOC = """<annotation><filename>whatever.jpg</filename>
<object><name>dog</name><difficult>{difficult}</difficult>
<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>60</xmax><ymax>80</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>
</annotation>"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with one dog in photos/a.jpg, of 100x200 pixels, and nothing in photos/b.jpg."""
    size = {"width": 100, "height": 200}
    rows = [{"path": "photos/a.jpg", **size, "detections": [BOX]}, {"path": "photos/b.jpg", **size, "detections": []}]
    return output(tmp_path_factory.mktemp("found"), "detect", CATEGORIES, rows)


def evaluated(found: Path, truth: Path, tmp_path: Path, **options: Any) -> Any:
    return cvjobs.eval(str(found), str(truth), out=str(tmp_path / "out"), **options)


def coco(**changes: Any) -> dict[str, Any]:
    annotation = {"id": 1, "image_id": 7, "category_id": 5, "bbox": [10, 20, 50, 60], "area": 3000, "iscrowd": 0}
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 200}],
        "categories": [{"id": 5, "name": "Dog"}],
        "annotations": [annotation],
        **changes,
    }


def test_coco_by_base_name_and_by_the_name_of_the_class(found: Path, tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(coco()))
    got = evaluated(found, tmp_path / "truth.json", tmp_path)
    assert got.metrics["AP"] == pytest.approx(1.0)
    assert got.images == {"truth": 1, "evaluated": 1, "failed": 0, "missing": 0, "unknown": 1}


@pytest.mark.parametrize(("difficult", "counted"), [(0, 1), (1, 0)])
def test_voc(found: Path, tmp_path: Path, difficult: int, counted: int) -> None:
    folder = tmp_path / "voc" / "Annotations"
    folder.mkdir(parents=True)
    (folder / "a.xml").write_text(VOC.format(difficult=difficult))
    (folder / "b.xml").write_text("<annotation></annotation>")
    (folder / ".hidden.xml").write_text("no XML")
    got = evaluated(found, tmp_path / "voc", tmp_path)
    assert [c["truths"] for c in got.classes] == [counted]
    # What is difficult may be found: it is neither right nor wrong.
    assert [got.metrics[name] for name in ("AP", "VOC_AP50")] == pytest.approx([1.0 if counted else -1.0] * 2)
    assert got.images["evaluated"] == 2


def test_yolo(found: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "labels" / "val"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("1 0.35 0.25 0.5 0.3\n\n0 0.1 0.1 0.4 0.1 0.4 0.2\n")
    (tmp_path / "data" / "data.yaml").write_text("names: {0: cat, 1: dog}\nval: images/val\n")
    got = evaluated(found, folder, tmp_path)
    assert [(c["name"], c["truths"], c["AP"]) for c in got.classes] == [("cat", 1, 0.0), ("dog", 1, pytest.approx(1.0))]
    assert got.images["truth"] == 1
    images = tmp_path / "data" / "images" / "val"
    images.mkdir(parents=True)
    (images / "b.jpg").write_bytes(b"not opened")
    assert evaluated(found, folder, tmp_path).images["truth"] == 2  # one without a label: nothing is there


def test_yolo_without_names_goes_by_number(found: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("2 0.35 0.25 0.5 0.3\n")
    assert evaluated(found, tmp_path / "labels", tmp_path).metrics["AP"] == pytest.approx(1.0)
    (tmp_path / "names.txt").write_text("bird\ncow\ndog\n")
    got = evaluated(found, tmp_path / "labels", tmp_path, labels=str(tmp_path / "names.txt"))
    assert [c["name"] for c in got.classes] == ["bird", "cow", "dog"]
    assert got.metrics["AP"] == pytest.approx(1.0)
    assert got.notes == [
        "left out, images that the truth does not know: 1 (photos/b.jpg)",
        "classes that the model does not know: bird, cow",
    ]


def write(folder: Path, name: str, content: bytes) -> Path:
    """A file of the truth; the truth itself is the file, or for others than JSON its folder."""
    file = folder / "truth" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    return file if name.endswith((".json", ".csv")) else file.parent


ENTITIES = b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>\n<annotation>&c;</annotation>'
OUTSIDE = b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>\n<annotation>&b;</annotation>'


def changed(**changes: Any) -> bytes:
    return json.dumps(coco(annotations=[{**coco()["annotations"][0], **changes}])).encode()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.json", b'{"images": [],\n "categories" 1}', "t.json, line 2 is no JSON"),
        ("t.json", b"\xff\xfe\x00", "is no JSON"),
        ("t.json", b"[" * 100_000, "is no JSON that can be read"),
        ("t.json", b"9" * 5000, "is no JSON that can be read"),
        ("t.json", b"[1, 2]", "is no COCO annotation file"),
        ("t.json", b'{"images": [], "categories": [], "annotations": []}', "knows no image"),
        ("t.json", changed(bbox=[1, 2, float("nan"), 3]), "bbox that is no [x, y, width, height]"),
        ("t.json", changed(bbox=[1, 2, 10**400, 3]), "bbox that is no [x, y, width, height]"),
        ("t.json", changed(bbox=[1, 2, -3, 3]), "bbox that is no [x, y, width, height]"),
        ("t.json", changed(bbox="large"), "bbox that is no [x, y, width, height]"),
        ("t.json", changed(image_id=8), "image_id 8, which it does not describe"),
        ("t.json", changed(image_id=10**30), "no usable 'image_id' in annotation 1 of 1"),
        ("t.json", changed(category_id="dog"), "no usable 'category_id' in annotation 1 of 1"),
        ("t.json", json.dumps(coco(annotations=[None])).encode(), "in annotation 1 of 1"),
        ("t.json", json.dumps(coco(images=coco()["images"] * 2)).encode(), "gives one id to several images"),
        ("t.xml", b"<annotation>\n<object>\n</annotation>", "t.xml, line 3 is no XML"),
        ("t.xml", ENTITIES, "t.xml, line 1 declares an entity"),
        ("t.xml", OUTSIDE, "t.xml, line 1 declares an entity"),
        ("t.xml", b"<a>" * 5000, "is nested over 100 elements deep"),
        ("t.xml", b"<html/>", "is no VOC annotation"),
        (
            "t.xml",
            b"<annotation>\n<object><name>x</name></object></annotation>",
            "t.xml, line 2 has an object without a bndbox",
        ),
        ("t.xml", VOC.replace("60", "inf").encode(), "t.xml, line 3 has a bndbox without"),
        ("t.txt", b"0 0.1 0.1 0.2 0.2\n1 0.5\n", "t.txt, line 2 is no YOLO label"),
        ("t.txt", b"cat 0.1 0.1 0.2 0.2\n", "t.txt, line 1 is no YOLO label"),
        ("t.txt", b"0 10 10 200 20\n", "t.txt, line 1 has values over 1"),
        ("t.txt", b"0 nan 0.1 0.2 0.2\n", "t.txt, line 1 is no YOLO label"),
        ("t.txt", b"\xff\xfe", "is no UTF-8 text"),
        ("t.md", b"", "is no truth for these predictions: name COCO JSON"),
    ],
)
def test_a_malformed_truth_of_boxes_is_one_sentence(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    truth = write(tmp_path, name, content)
    with pytest.raises(WrongUse) as error:
        ground_truth_open.read(str(truth), "detect")
    assert said in str(error.value)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("outline", "said"),
    [
        (None, "no usable segmentation in annotation 1"),
        ([], "no usable segmentation in annotation 1"),
        ([[1, 2]], "makes no sense in annotation 1"),
        ([[0, 0, 1e12, 0, 1e12, 1e12]], "makes no sense in annotation 1"),
        ({"size": [200, 100]}, "makes no sense in annotation 1"),
        ({"counts": [1, "x"], "size": [200, 100]}, "makes no sense in annotation 1"),
    ],
)
def test_a_malformed_mask_is_one_sentence(tmp_path: Path, outline: Any, said: str) -> None:
    (annotation,) = coco()["annotations"]
    whole = {**annotation, "id": 2, "segmentation": [[10, 20, 60, 20, 60, 80]]}
    both = coco(annotations=[{**annotation, "segmentation": outline}, whole])
    truth = write(tmp_path, "t.json", json.dumps(both).encode())
    with pytest.raises(WrongUse, match=said):
        ground_truth_open.read(str(truth), "instance")
    assert isinstance(ground_truth_open.read(str(truth), "detect"), ObjectTruth)  # boxes alone do not need it


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"file,class\na,b\n", "t.csv, line 1 must name the columns path and label"),
        (b"path,label\na.jpg\n", "t.csv, line 2 has no label"),
        (b"path,label\na.jpg,cat\na.jpg,dog\n", "t.csv, line 3 gives 'a.jpg' a second label"),
        (b"path,label\n\xff,cat\n", "is no UTF-8 text"),
        (b"path,label\n" + b"x" * 200_000 + b",cat\n", "t.csv, line 2 is no CSV"),
        (b"", "t.csv, line 1 must name the columns path and label"),
    ],
)
def test_a_malformed_table_is_one_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    truth = write(tmp_path, "t.csv", content)
    with pytest.raises(WrongUse) as error:
        ground_truth_open.read(str(truth), "classify")
    assert said in str(error.value)


def test_masks_beside_a_truth_without_any_are_evaluated_by_their_boxes(tmp_path: Path) -> None:
    size = {"width": 100, "height": 200}
    row = {
        "path": "a.jpg",
        **size,
        "detections": [{**BOX, "rle": rle.encode(np.ones((9, 9), bool), (0, 0), (200, 100))}],
    }
    given = output(tmp_path / "given", "instance", CATEGORIES, [row])
    (tmp_path / "truth.json").write_text(json.dumps(coco()))
    got = evaluated(given, tmp_path / "truth.json", tmp_path)
    assert got.metrics["AP"] == pytest.approx(1.0)
    assert got.notes == ["the truth has no masks: these are the numbers of the boxes"]


def bomb() -> bytes:
    """A PNG whose header claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def png(pixels: Any) -> bytes:
    import io

    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (bomb(), "a.png has 60000 x 60000 pixels"),
        (b"", "a.png is no PNG"),
        (png(np.zeros((4, 4)))[:45], "a.png is damaged"),
        (png(np.zeros((4, 4, 3))), "a.png has colours (mode RGB)"),
        (png(np.full((4, 4), 9)), "a.png has a class id without a name"),
    ],
)
def test_a_malformed_mask_of_pixels_is_one_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    row = {"path": "a.jpg", "width": 4, "height": 4, "class_map": png(np.zeros((4, 4))), "classes": []}
    given = output(tmp_path / "given", "semantic", CATEGORIES, [row])
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    with pytest.raises(WrongUse) as error:
        cvjobs.eval(str(given), str(write(tmp_path, "a.png", content)), labels=str(tmp_path / "names.txt"))
    assert said in str(error.value)


def test_a_fifo_is_no_truth(tmp_path: Path) -> None:
    (tmp_path / "voc").mkdir()
    os.mkfifo(tmp_path / "voc" / "a.xml")
    with pytest.raises(WrongUse, match="is no file that could be read"):
        ground_truth_open.read(str(tmp_path / "voc"), "detect")


def test_what_does_not_fit_is_said(found: Path, tmp_path: Path) -> None:
    for changes, said in (
        ({"images": [{"id": 7, "file_name": "c.jpg"}]}, "No image of the predictions is in the truth"),
        ({"categories": [{"id": 5, "name": "bird"}]}, "No class of the predictions is in the truth"),
    ):
        (tmp_path / "truth.json").write_text(json.dumps(coco(**changes)))
        with pytest.raises(WrongUse, match=said):
            evaluated(found, tmp_path / "truth.json", tmp_path)
    with pytest.raises(WrongUse, match="There is no truth at"):
        evaluated(found, tmp_path / "nothing", tmp_path)
    with pytest.raises(WrongUse, match="must be on this machine"):
        cvjobs.eval(str(found), "s3://bucket/truth.json")
    with pytest.raises(WrongUse, match="holds no finished predictions"):
        cvjobs.eval(str(tmp_path), str(tmp_path / "truth.json"))
    (tmp_path / "list.json").write_text("{}")
    with pytest.raises(WrongUse, match="holds no predictions"):
        cvjobs.eval(str(tmp_path / "list.json"), str(tmp_path / "truth.json"))


@pytest.mark.parametrize("shut", ["near", "near/deep/far/away"])  # the second is met when the masks are listed
def test_a_folder_of_the_truth_that_cannot_be_listed_is_one_sentence(tmp_path: Path, shut: str) -> None:
    truth = opened(tmp_path) / "truth"
    (truth / shut).mkdir(parents=True)
    (truth / "a.png").touch()
    (truth / shut).chmod(0)

    def read() -> str:
        with pytest.raises(WrongUse) as refused:
            ground_truth_open.read(str(truth), "semantic")
        return str(refused.value)

    try:
        assert as_nobody(read) == f"{truth / shut} cannot be read (Permission denied)."
    finally:
        (truth / shut).chmod(0o755)


@pytest.mark.parametrize("categories", [5, {"id": 1}, "cats"])
def test_predictions_with_categories_that_are_no_list_are_one_sentence(tmp_path: Path, categories: Any) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(coco()))
    (tmp_path / "found.json").write_text(json.dumps(coco(categories=categories)))
    with pytest.raises(WrongUse, match=r"found\.json has categories that are no list\.$"):
        evaluated(tmp_path / "found.json", tmp_path / "truth.json", tmp_path)
