"""`cvjobs check` on labels, boxes and masks, sound and spoilt: every count is worked out by hand here."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import Ended, here, sentence
from PIL import Image
from vectors import Fake

import cvjobs
from cvjobs.evaluation.ground_truth import coco, openimages, voc, yolo_lines
from cvjobs.inspection.problems import COLUMNS, KINDS

WIDTH, HEIGHT = 100, 80


def image(place: Path, seed: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """A PNG in which something is to be seen, of (width, height)."""
    place.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(place)
    return place


@dataclass
class Looked:
    """What a check left: the numbers, how often each problem is there, and the rows."""

    ended: Ended
    numbers: dict[str, Any]
    rows: list[dict[str, Any]]
    page: str

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(row["problem"] for row in self.rows))

    def paths(self, kind: str) -> list[str]:
        return sorted(row["path"] for row in self.rows if row["problem"] == kind)

    def details(self, kind: str) -> list[str]:
        return sorted(row["detail"] for row in self.rows if row["problem"] == kind)


def check(out: Path, *words: object, code: int) -> Looked:
    ended = here("check", *words, "-o", out)
    assert ended.code == code, ended
    numbers = json.loads((out / "check.json").read_text())
    rows = pq.read_table(out / "problems.parquet").to_pylist()
    assert {kind: own["count"] for kind, own in numbers["problems"].items()} == Counter(r["problem"] for r in rows)
    assert numbers["wrong"] == sum(row["wrong"] for row in rows)
    return Looked(ended, numbers, rows, (out / "report.html").read_text())


def test_class_folders(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for seed, name in enumerate(("train/cat/a", "train/cat/b", "train/dog/c", "val/cat/d", "val/dog/e")):
        image(data / f"{name}.png", seed)
    sound = check(tmp_path / "sound", data, code=0)
    assert sound.counts == {}
    assert sound.numbers["images"] == {"train": 3, "val": 2}
    assert sound.numbers["classes"] == [
        {"name": "cat", "images": {"train": 2, "val": 1}},
        {"name": "dog", "images": {"train": 1, "val": 1}},
    ]
    assert sound.numbers["image_sizes"]["frequent"] == [[WIDTH, HEIGHT, 5]]
    assert "no problem found" in sound.ended.out

    shutil.copy(data / "train/cat/a.png", data / "val/cat/leak.png")
    shutil.copy(data / "train/cat/b.png", data / "train/dog/other.png")  # the same picture, another label
    shutil.copy(data / "train/dog/c.png", data / "train/dog/twice.png")
    whole = (data / "train/dog/c.png").read_bytes()
    (data / "val/dog/short.png").write_bytes(whole[: len(whole) // 2])
    (data / "val/dog/words.jpg").write_text("no image")
    Image.new("RGB", (WIDTH, HEIGHT)).save(data / "val/dog/black.png")
    image(data / "train/loose.png", 9)  # in no class
    (data / "train/notes.txt").write_text("words")
    bad = check(tmp_path / "bad", data, code=1)
    assert bad.counts == {"failed": 2, "leak": 1, "contradiction": 1, "double": 1, "blank": 1, "unlabelled": 1}
    assert bad.paths("failed") == ["val/dog/short.png", "val/dog/words.jpg"]
    assert [detail.partition(":")[0] for detail in bad.details("failed")] == ["not_an_image", "truncated"]
    assert [(row["path"], row["other"]) for row in bad.rows if row["problem"] == "leak"] == [
        ("val/cat/leak.png", "train/cat/a.png")
    ]
    assert bad.details("contradiction") == ["dog here, cat there"]
    assert bad.numbers["images"] == {"train": 5, "val": 4}
    assert bad.numbers["wrong"] == 4
    assert bad.numbers["doubtful"] == 3
    assert bad.numbers["left_out"]["skipped"] == {".txt": {"count": 1, "first": ["train/notes.txt"]}}
    assert "4 problems to correct" in bad.page
    assert "failed 1  truncated: " in bad.ended.out
    assert "train/notes.txt" in bad.ended.out
    again = check(tmp_path / "bad", data, code=1)
    assert again.rows == bad.rows


def annotation(number: int, image_id: object, category_id: object, bbox: object, **more: object) -> dict[str, Any]:
    return {"id": number, "image_id": image_id, "category_id": category_id, "bbox": bbox, "iscrowd": 0, **more}


def coco_file(place: Path, images: list[str], annotations: list[dict[str, Any]], **more: object) -> Path:
    about = [{"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT} for n, name in enumerate(images, 1)]
    categories = [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}]
    content = {"images": about, "annotations": annotations, "categories": categories, **more}
    place.write_text(json.dumps(content))
    return place


def test_what_anchors_reach_on_boxes(tmp_path: Path) -> None:
    image(tmp_path / "data" / "a.png", 1)
    made = [annotation(n, 1, 1, [n, n, 40, 10]) for n in range(1, 16)]
    found = check(tmp_path / "15", tmp_path / "data", "--truth", coco_file(tmp_path / "15.json", ["a.png"], made),
                  "--img-size", 160, code=0)  # fmt: skip
    anchors = found.numbers["figures"]["anchors"]
    # Boxes of 80 x 20; the nearest default anchor is 46 x 22: 920 / (1600 + 1012 - 920) is 0.54.
    assert (anchors["iou"], anchors["recall"], anchors["recall_fitted"]) == ([0.5, 0.7], [1.0, 0.0], [1.0, 1.0])
    assert anchors["sizes_fitted"] == [[40.0]] * 5
    assert anchors["aspect_ratios_fitted"] == [[0.25] * 3] * 5
    assert "and 0.0% one of 0.7; with as many anchors that k-means fits to the boxes 100.0% and 100.0%" in found.page
    few = coco_file(tmp_path / "14.json", ["a.png"], made[:14])
    fewer = check(tmp_path / "14", tmp_path / "data", "--truth", few, code=0)
    assert "anchors" not in fewer.numbers["figures"]
    assert "k-means" not in fewer.page


def test_coco_in_two_splits(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for seed, name in enumerate(("train/a", "train/b", "val/a", "val/c")):  # a name that both splits have
        image(data / f"{name}.png", seed)
    train = coco_file(
        data / "train.json",
        ["a.png", "b.png"],
        [
            annotation(1, 1, 1, [10, 10, 40, 20]),
            annotation(2, 1, 7, [0, 0, 50.5, 80]),
            annotation(3, 1, 1, [5, 5, 4, 4]),
        ],
    )
    val = coco_file(data / "instances_val2017.json", ["a.png", "c.png"], [annotation(1, 2, 7, [0, 0, 100, 80])])
    sound = check(tmp_path / "sound", data, "--truth", train, "--truth", val, "--img-size", 160, code=0)
    assert sound.counts == {}
    assert sound.numbers["images"] == {"train": 2, "val": 2}
    assert [(one["format"], one["split"]) for one in sound.numbers["truths"]] == [("coco", "train"), ("coco", "val")]
    figures = sound.numbers["figures"]
    assert figures["objects"] == 4
    assert figures["images_without_objects"] == 2  # train/b, val/a
    # At 160 pixels everything is twice as large: sides of sqrt(3200), 2 sqrt(4040), 8 and 2 sqrt(8000).
    assert figures["below_8_pixels"] == 0.0
    assert figures["objects_in_an_image"] == {
        "from": [0, 1, 2, 3, 5, 9, 17, 33, 65, 129],
        "count": [2, 1, 0, 1] + [0] * 6,
    }
    assert figures["side_in_pixels_at_the_input"]["count"] == [0, 0, 1, 0, 1, 0, 1, 1, 0, 0]
    assert figures["width_by_height"]["count"] == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0]
    cat, dog = sound.numbers["classes"]
    assert cat["objects"] == {"train": 2, "val": 0}
    assert cat["images"] == {"train": 1, "val": 0}
    assert dog["objects"] == {"train": 1, "val": 1}
    small = check(tmp_path / "small", data, "--truth", train, "--truth", val, "--img-size", 80, code=0)
    assert small.numbers["figures"]["below_8_pixels"] == 0.25


def test_coco_with_everything_wrong(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for seed, name in enumerate(("a", "b", "c", "unknown")):
        image(data / f"{name}.png", seed, (HEIGHT, WIDTH) if name == "c" else (WIDTH, HEIGHT))
    square = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
    truth = coco_file(
        tmp_path / "truth.json",
        ["a.png", "b.png", "c.png", "gone.png"],
        [
            annotation(1, 1, 1, [10, 10, 20, 20], segmentation=square),
            annotation(2, 99, 1, [10, 10, 20, 20], segmentation=square),  # no such image
            annotation(3, 1, 5, [10, 10, 20, 20], segmentation=square),  # no such class
            annotation(4, 1, 1, [10, 10, -3, 20], segmentation=square),  # no box
            annotation(5, 2, 1, [90, 10, 30, 20], segmentation=square),  # beyond the right border, by 20
            annotation(6, 2, 1, [10, 10, 0, 20], segmentation=square),  # no area
            annotation(7, 1, 1, [10, 10, 20, 20], segmentation=square),  # as 1
            annotation(8, 1, 7, [10, 10, 20, 20], segmentation=square),  # the same box, another class
            annotation(9, 2, 1, [10, 10, 20, 20], segmentation={"size": [5, 5], "counts": [25]}),  # another size
            annotation(10, 2, 1, [79.5, 59.5, 21, 21], segmentation=square),  # half a pixel beyond is none
        ],
    )
    bad = check(tmp_path / "out", data, "--truth", f"val={truth}", code=1)
    assert bad.counts == {
        "image_missing": 1,
        "id_unknown": 1,
        "class_unknown": 1,
        "box_bad": 1,
        "box_outside": 1,
        "box_empty": 1,
        "box_double": 2,
        "mask_bad": 1,
        "size_differs": 1,
        "truth_missing": 1,
    }
    where = {row["problem"]: row["where"].removeprefix(f"{truth}, ") for row in bad.rows}
    assert where["id_unknown"] == "annotation 2"
    assert where["class_unknown"] == "annotation 3"
    assert where["mask_bad"] == "annotation 9"
    assert bad.details("id_unknown") == ["has an annotation with the image_id 99, which it does not describe"]
    assert bad.details("box_outside") == ["cat at 90, 10, 30, 20, image 100 x 80"]
    assert bad.details("box_double") == ["cat at 10, 10, 20, 20", "dog at 10, 10, 20, 20, there already as cat"]
    assert bad.details("size_differs") == ["80 x 100 pixels, and the truth says 100 x 80: it lies on its side"]
    assert bad.paths("truth_missing") == ["unknown.png"]
    assert bad.numbers["task"] == "instance"
    assert bad.numbers["figures"]["objects"] == 6
    assert "annotation 9" in bad.page
    assert "<svg viewBox" in bad.page


def test_coco_panoptic(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        image(tmp_path / f"images/{name}.png", seed)
    truth = tmp_path / "panoptic.json"
    segments = [{"id": 5, "category_id": 1, "iscrowd": 0}, {"id": 6, "category_id": 7, "iscrowd": 0}]
    annotations = [{"image_id": n, "file_name": f"{n}.png", "segments_info": segments} for n in (1, 2)]
    coco_file(truth, ["a.png", "b.png"], annotations)
    pixels = np.full((HEIGHT, WIDTH, 3), (5, 0, 0), np.uint8)
    pixels[20:40, 10:60] = (6, 0, 0)
    (tmp_path / "panoptic").mkdir()
    Image.fromarray(pixels).save(tmp_path / "panoptic/1.png")
    bad = check(tmp_path / "out", tmp_path / "images", "--truth", truth, code=1)
    assert bad.counts == {"truth_unreadable": 1}  # 2.png
    assert bad.numbers["figures"]["objects"] == 2
    assert bad.numbers["figures"]["width_by_height"]["count"] == [0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0]  # 100 x 80, 50 x 20
    assert bad.numbers["figures"]["images_without_objects"] == 1


def voc_file(place: Path, *objects: tuple[str, object]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    things = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{side}>{n}</{side}>" for side, n in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox></object>\n"
        for name, box in objects
        if isinstance(box, tuple)
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    place.write_text(f"<annotation>{size}\n{things}</annotation>")


def test_voc(tmp_path: Path) -> None:
    images, truth = tmp_path / "JPEGImages", tmp_path / "Annotations"
    image(images / "a.png", 1)
    image(images / "b.png", 2)
    voc_file(truth / "a.xml", ("cat", (1, 1, 100, 80)), ("dog", (5, 5, 25, 45)))
    voc_file(truth / "b.xml")
    sound = check(tmp_path / "sound", images, "--truth", truth, code=0)
    assert sound.counts == {}
    assert [(own["name"], own["objects"]) for own in sound.numbers["classes"]] == [("cat", {"": 1}), ("dog", {"": 1})]
    assert sound.numbers["figures"]["images_without_objects"] == 1
    voc_file(
        truth / "a.xml",
        ("cat", (1, 1, 103, 80)),  # beyond
        ("dog", (5, 5, 5, 45)),  # no width
        ("dog", (50, 5, 25, 45)),  # the other way round
        ("cat", (7, 7, 9, 9)),
        ("cat", (7, 7, 9, 9)),  # twice
    )
    (truth / "b.xml").write_text("<annotation><object>")
    voc_file(truth / "gone.xml", ("cat", (1, 1, 9, 9)))
    bad = check(tmp_path / "bad", images, "--truth", truth, code=1)
    assert bad.counts == {
        "truth_unreadable": 1,
        "image_missing": 1,
        "box_bad": 1,
        "box_outside": 1,
        "box_empty": 1,
        "box_double": 1,
    }
    assert [row["where"] for row in bad.rows if row["problem"] == "box_bad"] == [f"{truth / 'a.xml'}, line 4"]


def test_yolo(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for seed, name in enumerate(("train/images/a", "train/images/b", "valid/images/a", "valid/images/c")):
        image(data / f"{name}.png", seed)
    for split, name, text in (
        ("train", "a", "0 0.5 0.5 0.2 0.5\n1 0.1 0.1 0.1 0.1\n"),
        ("valid", "a", "1 .5 .5 1 1\n"),
    ):
        place = data / split / "labels" / f"{name}.txt"
        place.parent.mkdir(parents=True)
        place.write_text(text)
    (data / "data.yaml").write_text("names: [cat, dog]\n")
    sound = check(tmp_path / "sound", data, "--truth", data, code=0)
    assert sound.counts == {}
    assert sound.numbers["images"] == {"train": 2, "val": 2}
    assert [(own["name"], own["objects"]) for own in sound.numbers["classes"]] == [
        ("cat", {"train": 1, "val": 0}),
        ("dog", {"train": 1, "val": 1}),
    ]
    # The box of cat is 20 pixels wide and 40 high, those of dog 10 x 8 and 100 x 80.
    assert sound.numbers["figures"]["width_by_height"]["count"] == [0, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0]
    assert sound.numbers["figures"]["images_without_objects"] == 2
    lines = [
        "2 .5 .5 .1 .1",
        "0 .5 .5",
        "0 .98 .5 .2 .2",
        "1 .5 .5 0 .1",
        "1 .5 .5 .2 .2",
        "1 .5 .5 .2 .2",
        "cat .5 .5 1 1",
    ]
    (data / "train/labels/a.txt").write_text("\n".join(lines))
    (data / "valid/labels/gone.txt").write_text("0 .5 .5 .1 .1")
    bad = check(tmp_path / "bad", data, "--truth", data, code=1)
    assert bad.counts == {
        "image_missing": 1,
        "class_unknown": 1,
        "box_bad": 2,
        "box_outside": 1,
        "box_empty": 1,
        "box_double": 1,
    }
    assert bad.details("class_unknown") == ["has the class 2, and there are names for 2"]
    assert bad.details("box_outside") == ["cat at 88, 32, 20, 16, image 100 x 80"]
    assert bad.paths("image_missing") == ["valid/images/gone"]


def mask(place: Path, values: dict[int, int], size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """A PNG whose first pixels have these values, as many as they say, and all others are 0."""
    place.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size[0] * size[1], np.uint8)
    at = 0
    for value, count in values.items():
        pixels[at : at + count] = value
        at += count
    Image.fromarray(pixels.reshape(size[1], size[0])).save(place)


def test_masks(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for seed, name in enumerate(("train/images/a", "train/images/b", "val/images/c")):
        image(data / f"{name}.png", seed)
    for split in ("train", "val"):
        (data / split / "masks").mkdir()
        (data / split / "masks" / "classes.txt").write_text("road\nsky\n")
    mask(data / "train/masks/a.png", {1: 2000, 255: 800})
    mask(data / "train/masks/b.png", {})
    mask(data / "val/masks/c.png", {1: 8000})
    truths = ("--truth", data / "train/masks", "--truth", data / "val/masks")
    sound = check(tmp_path / "sound", data, *truths, code=0)
    assert sound.counts == {}
    assert sound.numbers["images"] == {"train": 2, "val": 1}  # the masks are no images
    assert sound.numbers["classes"] == [
        {"name": "road", "id": 0, "images": {"train": 2, "val": 0}, "pixels": {"train": 0.825, "val": 0.0}},
        {"name": "sky", "id": 1, "images": {"train": 1, "val": 1}, "pixels": {"train": 0.125, "val": 1.0}},
    ]
    assert sound.numbers["figures"] == {"masks": 3, "void": {"train": 0.05, "val": 0.0}}
    image(data / "train/images/lonely.png", 8)
    mask(data / "train/masks/a.png", {1: 5, 2: 5, 9: 5, 255: 5})
    mask(data / "train/masks/b.png", {}, (50, 40))
    mask(data / "train/masks/gone.png", {})
    Image.new("RGB", (WIDTH, HEIGHT)).save(data / "val/masks/c.png")
    bad = check(tmp_path / "bad", data, *truths, code=1)
    assert bad.counts == {"image_missing": 1, "mask_bad": 1, "mask_size": 1, "mask_beyond": 1, "truth_missing": 1}
    assert bad.details("mask_beyond") == ["2, 9, and there are names for 2"]
    assert bad.details("mask_size") == ["mask 50 x 40, image 100 x 80"]
    assert bad.numbers["figures"]["masks"] == 3


def test_folders_that_are_most_likely_no_classes(tmp_path: Path) -> None:
    for number, name in enumerate(("train/images", "train/annotations", "val/images", "val/annotations")):
        image(tmp_path / "data" / name / "a.png", number)
    ended = here("check", tmp_path / "data", "-o", tmp_path / "out")
    assert ended.code == 0
    assert "images and annotations are taken for classes" in ended.err
    (tmp_path / "data/train/annotations").rename(tmp_path / "data/train/mice")
    (tmp_path / "data/val/annotations").rename(tmp_path / "data/val/mice")
    assert "taken for classes" not in here("check", tmp_path / "data", "-o", tmp_path / "out").err


@pytest.mark.parametrize("form", ["coco", "voc", "masks"])
def test_a_folder_that_holds_its_truth(form: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number, split in enumerate(("train", "val")):
        image(data / split / "images/a.png", number)
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
        about = {"images": [{"id": 1, "file_name": "images/a.png", "width": WIDTH, "height": HEIGHT}]}
        if form == "coco":
            whole = {**about, "annotations": [box], "categories": [{"id": 1, "name": "cell"}]}
            (data / f"{split}.json").write_text(json.dumps(whole))
        elif form == "voc":
            (data / split / "images/a.xml").write_text(
                "<annotation><object><name>cell</name><bndbox><xmin>6</xmin><ymin>6</ymin><xmax>25</xmax>"
                "<ymax>25</ymax></bndbox></object></annotation>"
            )
        else:
            (data / split / "masks").mkdir()
            Image.new("L", (WIDTH, HEIGHT), 1).save(data / split / "masks/a.png")
    found = check(tmp_path / "out", data, code=0)
    assert found.counts == {}
    assert found.numbers["images"] == {"train": 1, "val": 1}
    assert found.numbers["task"] == ("semantic" if form == "masks" else "detect")


def test_masks_with_a_palette(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png", 1)
    place = tmp_path / "masks/a.png"
    place.parent.mkdir()
    colours = Image.new("P", (WIDTH, HEIGHT), 3)
    colours.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    colours.save(place)
    (tmp_path / "names.txt").write_text("road\nsky\n")
    bad = check(
        tmp_path / "out", tmp_path / "images", "--truth", place.parent, "--labels", tmp_path / "names.txt", code=1
    )
    assert bad.counts == {"mask_beyond": 1}
    assert bad.details("mask_beyond") == ["3, and there are names for 2"]


def test_boxes_and_labels_in_csv(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        image(tmp_path / f"images/{name}.png", seed)
    boxes = tmp_path / "boxes.csv"
    head = "ImageID,LabelName,XMin,XMax,YMin,YMax\n"
    boxes.write_text(f"{head}a,cat,0.1,0.5,0.1,0.5\nb,dog,0.1,0.2,0.1,0.2\n")
    assert check(tmp_path / "1", tmp_path / "images", "--truth", boxes, code=0).numbers["figures"]["objects"] == 2
    boxes.write_text(f"{head}a,cat,0.1,0.5,0.1,0.5\na,dog,0.8,0.2,0.1,0.2\na,cat,0.5,1.5,0.1,0.2\ngone,cat,0,1,0,1\n")
    bad = check(tmp_path / "2", tmp_path / "images", "--truth", boxes, code=1)
    assert bad.counts == {"box_bad": 1, "box_outside": 1, "image_missing": 1, "truth_missing": 1}
    assert [row["where"] for row in bad.rows if row["problem"] == "box_bad"] == [f"{boxes}, line 3"]
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\na.png,cat\nb.png,dog\nb.png,cat\ngone.png,cat\n")
    named = check(tmp_path / "3", tmp_path / "images", "--truth", labels, code=1)
    assert named.counts == {"truth_unreadable": 1, "image_missing": 1}
    assert [(own["name"], own["images"]) for own in named.numbers["classes"]] == [("cat", {"": 1}), ("dog", {"": 1})]


def test_what_cannot_be_looked_at_is_one_sentence(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png", 1)
    other = coco_file(tmp_path / "other.json", ["z.png"], [])
    out = tmp_path / "out"
    assert "named with --truth" in sentence(here("check", tmp_path / "images", "-o", out), 2)
    assert "among those of DATA" in sentence(here("check", tmp_path / "images", "--truth", other, "-o", out), 2)
    assert "There is no truth" in sentence(here("check", tmp_path / "images", "--truth", "nowhere", "-o", out), 2)
    (tmp_path / "data.yaml").write_text("names: [ant]")
    ended = here("check", tmp_path / "images", "--truth", tmp_path / "data.yaml", "-o", out)
    assert f"name its folder, {tmp_path}," in sentence(ended, 2)
    for odd in ("", "a\0b", "~no-such-user/x", "train="):
        assert sentence(here("check", tmp_path / "images", "--truth", odd, "-o", out), 2)
    both = ("--truth", other, "--truth", tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text("path,label\na.png,cat\n")
    assert "several kinds" in sentence(here("check", tmp_path / "images", *both, "-o", out), 2)
    assert not out.exists()


def test_in_python_the_rows_are_the_problems(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png", 1)
    image(tmp_path / "images/b.png", 2)
    truth = coco_file(tmp_path / "truth.json", ["a.png"], [])
    found = cvjobs.check(str(tmp_path / "images"), out=str(tmp_path / "out"), truth=(str(truth),))
    table = found.to_arrow()
    assert table.column_names == list(COLUMNS)
    assert table.to_pylist()[0]["problem"] == "truth_missing"
    assert found.exit_code == 0
    assert "look at data" in sentence(here("embed", tmp_path / "images", "-o", tmp_path / "out"), 2)


@pytest.mark.parametrize("module", [coco, openimages, voc, yolo_lines])
def test_what_readers_complain_of_is_a_kind_of_problem(module: Any) -> None:
    source = Path(module.__file__).read_text()
    assert KINDS.keys() >= {kind for kind in ("box_bad", "mask_bad", "class_unknown", "id_unknown") if kind in source}


def test_vectors_tell_doubtful_labels_and_near_leaks(tmp_path: Path) -> None:
    random, data = np.random.default_rng(4), tmp_path / "data"
    of_class = {name: random.random(192) for name in ("cat", "dog")}
    known: dict[str, Any] = {}
    for split, count in (("train", 14), ("val", 4)):
        for name, common in of_class.items():
            for number in range(count):
                path = f"{split}/{name}/{number}.png"
                image(data / path, len(known))
                known[path] = np.asarray(0.5 * common + 0.5 * random.random(192), np.float32)
    (data / "train/cat/0.png").rename(data / "train/dog/a_cat.png")
    known["train/dog/a_cat.png"] = known.pop("train/cat/0.png")
    image(data / "val/cat/again.png", 99)
    known["val/cat/again.png"] = known["train/cat/5.png"] + np.float32(0.001)
    vectors = tmp_path / "vectors"
    contents = {path: (data / path).read_bytes() for path in known}
    Fake(vectors, 192, contents=contents).put(known)  # embedded elsewhere: the bytes tell
    found = check(tmp_path / "out", data, "--vectors", vectors, code=0)
    assert found.counts == {"near_leak": 1, "label_doubtful": 1}
    (near,) = [row for row in found.rows if row["problem"] == "near_leak"]
    assert (near["path"], near["other"], near["split"]) == ("val/cat/again.png", "train/cat/5.png", "val")
    (doubtful,) = [row for row in found.rows if row["problem"] == "label_doubtful"]
    assert doubtful["path"] == "train/dog/a_cat.png"
    assert doubtful["detail"].startswith("dog here, 10 of 10 neighbours are cat")
    assert found.numbers["figures"]["vectors"]["images"] == 37
    assert found.numbers["figures"]["vectors"]["without"] == 0
    assert here("index", vectors, "-o", tmp_path / "index").code == 0
    assert check(tmp_path / "again", data, "--vectors", tmp_path / "index", code=0).rows == found.rows
    shutil.rmtree(tmp_path / "again")
    others = tmp_path / "others"
    image(others / "a/1.png", 1000)
    for number in range(8):
        image(others / f"b/{number}.png", 1001 + number)
    assert "are of other images" in sentence(here("check", others, "--vectors", vectors, "-o", tmp_path / "o"), 2)
    assert "embed" in sentence(here("check", data, "--vectors", others, "-o", tmp_path / "o"), 2)
