"""Boxes that make no sense, or are odd: one sentence before anything is trained, or a count that is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from block_pictures import CLASSES, coco
from commands import here
from PIL import Image

from cvjobs.common.errors import WrongUse
from cvjobs.sources.listing import list_source
from cvjobs.training.data import box_labels, omissions
from cvjobs.training.data.labels import LabelledImages

Record = dict[str, Any]
Change = Callable[[Record, Path], Any]


def labelled(data: Path) -> LabelledImages:
    return box_labels.label(str(data), list_source(box_labels.images_of(str(data)), links=True), 0.3)


def first(**values: Any) -> Change:
    """A change of the first annotation."""
    return lambda whole, _: whole["annotations"][0].update(values)


def text_ids(whole: Record, _: Path) -> None:
    for image in whole["images"]:
        image["id"] = f"im{image['id']}"
    for one in whole["annotations"]:
        one |= {"id": f"a{one['id']}", "image_id": f"im{one['image_id']}", "category_id": str(one["category_id"])}


def crowds(whole: Record, _: Path) -> None:
    for one in whole["annotations"]:
        one["iscrowd"] = 1


def spoilt(root: Path, change: Change) -> Path:
    """Six images to train on and three to validate with, the truth of train changed; text it returns is all of it."""
    data = coco(root, {"train": 6, "val": 3})
    whole = json.loads((data / "train.json").read_text())
    said = change(whole, data)
    (data / "train.json").write_text(said if isinstance(said, str) else json.dumps(whole))
    return data


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (first(category_id=9), "has an annotation with the category 9, which it does not describe"),
        (first(category_id="disc"), "has no usable 'category_id' in annotation 1 of 8"),
        (first(image_id=77), "has an annotation with the image_id 77, which it does not describe"),
        (first(bbox=[1, float("nan"), 5, 5]), "has a bbox that is no .x, y, width, height. in record 1 of 8"),
        (first(bbox=[1, 1, float("inf"), 5]), "has a bbox that is no .x, y, width, height. in record 1 of 8"),
        (first(bbox=[9, 9, -5, 5]), "has a bbox that is no .x, y, width, height. in record 1 of 8"),
        (first(bbox=None), "has a bbox that is no .x, y, width, height. in record 1 of 8"),
        (lambda whole, _: whole["images"][1].update(id=0), "gives one id to several images"),
        (lambda whole, _: [image.pop("file_name") for image in whole["images"]], "names no file of an image"),
        (lambda whole, _: json.dumps(whole)[:-300], "is no JSON"),
        (lambda *_: "", "is no JSON"),
        (lambda *_: "[]", "is no COCO annotation file"),
        (lambda whole, _: whole.pop("categories") and None, "name their categories, and others do not"),
        (lambda whole, _: whole.update(annotations=[]), "The split train of .* has no object to train on"),
        (crowds, "The split train of .* has no object to train on"),
        (lambda whole, _: whole.update(images=[], annotations=[]), "has no images to train on"),
        (lambda _, data: shutil.rmtree(data / "train"), "No image beside .*train.json has the name of one in it"),
    ],
)
def test_what_cannot_be_trained_on_is_one_sentence(tmp_path: Path, change: Change, said: str) -> None:
    with pytest.raises(WrongUse, match=said) as told:
        labelled(spoilt(tmp_path / "data", change))
    assert told.value.exit_code == 2
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("change", "counts", "images", "objects"),
    [
        (lambda *_: None, {}, 6, 8),
        (lambda _, data: (data / "train/train000.png").unlink(), {"missing": 1}, 5, 7),
        (lambda whole, _: whole["images"][1].update(file_name="train000.png"), {"repeated": 2}, 4, 6),
        (first(bbox=[9, 6, 0, 30]), {"areas": 1, "empty": 1}, 6, 7),
        (first(bbox=[200, 200, 10, 10]), {"areas": 1, "empty": 1}, 6, 7),
        (first(bbox=[90, 60, 30, 30]), {}, 6, 8),  # cut off at the edge
        (first(bbox=None, segmentation=[[200, 200, 220, 200, 220, 230]]), {"areas": 1, "empty": 1}, 6, 7),
        (first(segmentation=[[10, 10, 20, 20]]), {}, 6, 8),  # two points have a box, and no mask that matters
        (first(bbox=None, segmentation=[[10, 10]]), {"areas": 1, "empty": 1}, 6, 7),
        (first(iscrowd=1), {"crowds": 1, "empty": 1}, 6, 7),
        (text_ids, {}, 6, 8),
        (lambda whole, _: whole["categories"].append({"id": 7, "name": "nobody"}), {"unused": 1}, 6, 8),
        (lambda whole, _: whole["categories"].append({"id": 7, "name": CLASSES[0]}), {}, 6, 8),
    ],
)
def test_what_is_odd_is_counted(
    tmp_path: Path, change: Change, counts: dict[str, int], images: int, objects: int
) -> None:
    found = labelled(spoilt(tmp_path / "data", change))
    assert {kind: own["count"] for kind, own in found.beside.items()} == counts
    assert len(omissions.lines(found.beside)) == len(counts)
    train = found.splits["train"]
    assert train.objects is not None
    assert (len(train), int(train.objects.usable.sum())) == (images, objects)


def yolo(root: Path, line: str) -> Path:
    """Four images, the first of which has this line."""
    for place in ("images", "labels"):
        (root / place).mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (32, 32)).save(root / f"images/{number}.png")
        (root / f"labels/{number}.txt").write_text(line if not number else "0 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text("names: [a, b, c, d]\n")
    return root


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("4 0.5 0.5 0.2 0.2\n", "0.txt, line 1 has the class 4, and there are names for 4"),
        ("1 0.5 nan 0.2 0.2\n", "0.txt, line 1 is no YOLO label"),
        ("1 50 50 20 20\n", "0.txt, line 1 has values over 1"),
        ("1 1.1 1.1 1.5 1.1 1.5 1.5\n", {"areas", "empty", "unused"}),
        ("1 0.5 0.5 0 0.2\n", {"areas", "empty", "unused"}),
        ("", {"empty", "unused"}),
    ],
)
def test_labels_of_yolo(tmp_path: Path, line: str, said: str | set[str]) -> None:
    data = yolo(tmp_path / "data", line)
    if isinstance(said, set):
        assert set(labelled(data).beside) == said
        return
    with pytest.raises(WrongUse, match=said):
        labelled(data)


BOX = "<bndbox><xmin>3</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        (f"<object>{BOX}</object>", "has an object without a name"),
        ("<object><name>a</name></object>", "has an object without a bndbox"),
        (f"<object><name>a</name>{BOX.replace('>9<', '>nan<')}</object>", "has a bndbox without xmin <= xmax"),
        ("<object>", "is no XML"),
        (f"<object><name>a</name><difficult>1</difficult>{BOX}</object>", {"crowds", "empty"}),
        ("", {"empty"}),
    ],
)
def test_xml_of_voc(tmp_path: Path, objects: str, said: str | set[str]) -> None:
    for place in ("JPEGImages", "Annotations"):
        (tmp_path / place).mkdir()
    for number in range(4):
        own = objects if not number else f"<object><name>a</name>{BOX}</object>"
        size = "<size><width>32</width><height>32</height></size>"
        Image.new("RGB", (32, 32)).save(tmp_path / f"JPEGImages/{number}.png")
        (tmp_path / f"Annotations/{number}.xml").write_text(f"<annotation>{size}{own}</annotation>")
    if isinstance(said, set):
        assert set(labelled(tmp_path).beside) == said
        return
    with pytest.raises(WrongUse, match=said):
        labelled(tmp_path)


def test_the_command_ends_with_the_sentence(tmp_path: Path) -> None:
    data = spoilt(tmp_path / "data", first(category_id=9))
    ended = here("train", data, "-o", tmp_path / "run", "--task", "detect", "--weights", "random")
    assert ended.code == 2
    assert "the category 9, which it does not describe" in ended.err
    assert not (tmp_path / "run").exists()
