"""Boxes that other tools predicted, and truths of theirs, mean what COCO's results of the same mean."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from coco_reference import Record, reference
from PIL import Image

import cvjobs
from cvjobs.common.errors import WrongUse
from cvjobs.evaluation.metrics.coco_ap import METRICS

CLASSES = ["cat", "traffic light", "dog"]
SIDES = [(640, 480), (333, 501), (1001, 77)]
CLOSE = 1e-6


def made() -> tuple[Record, list[Record]]:
    """A truth of twelve images of three sizes with crowds, and detections that are moved from it."""
    random = np.random.default_rng(5)
    images = [
        {"id": 10 + at, "file_name": f"p{at:03d}.jpg", "width": SIDES[at % 3][0], "height": SIDES[at % 3][1]}
        for at in range(12)
    ]
    categories = [{"id": at + 1, "name": name} for at, name in enumerate(CLASSES)]
    annotations: list[Record] = []
    found: list[Record] = []
    for image in images:
        for _ in range(int(random.integers(0, 7))):
            box = random.uniform(0, 0.5, 4) * np.tile([image["width"], image["height"]], 2)
            number = int(random.integers(1, 4))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": number,
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": int(random.random() < 0.1),
                }
            )
            for _ in range(int(random.integers(0, 3))):
                found.append(
                    {
                        "image_id": image["id"],
                        "category_id": number if random.random() < 0.8 else int(random.integers(1, 4)),
                        "bbox": (box * random.uniform(0.85, 1.15, 4)).tolist(),
                        "score": float(random.random()),
                    }
                )
    return {"images": images, "categories": categories, "annotations": annotations}, found


TRUTH, FOUND = made()
IMAGES = {image["id"]: image for image in TRUTH["images"]}


def table(file: Path, names: str, of: Callable[[Record, Record], list[Any]]) -> Path:
    """A table of the detections, of columns parted by blanks."""
    rows = [dict(zip(names.split(), of(one, IMAGES[one["image_id"]]), strict=True)) for one in FOUND]
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        with file.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, names.split())
            writer.writeheader()
            writer.writerows(rows)
    return file


def corners(one: Record) -> list[float]:
    x, y, w, h = one["bbox"]
    return [x, y, x + w, y + h]


def shares(values: list[float], image: Record) -> list[float]:
    return [value / side for value, side in zip(values, [image["width"], image["height"]] * 2, strict=True)]


def centre(one: Record) -> list[float]:
    x, y, w, h = one["bbox"]
    return [x + w / 2, y + h / 2, w, h]


def name(one: Record) -> str:
    label: str = CLASSES[one["category_id"] - 1]
    return label


def yolo(folder: Path, records: list[Record], *, scores: bool, images: bool = False) -> Path:
    """Labels in `labels`, with scores as Ultralytics' `--save-conf` writes them, and empty images in `images`."""
    (folder / "labels").mkdir(parents=True)
    for image in TRUTH["images"]:
        own = [one for one in records if one["image_id"] == image["id"]]
        lines = []
        for one in own:
            values = [one["category_id"] - 1, *shares(centre(one), image), *([one["score"]] if scores else [])]
            lines.append(" ".join(map(repr, values)))
        if lines or not scores:  # Ultralytics writes no file for an image on which it found nothing
            (folder / "labels" / image["file_name"]).with_suffix(".txt").write_text("\n".join(lines))
        if images:
            (folder / "images").mkdir(exist_ok=True)
            Image.new("L", (image["width"], image["height"])).save(folder / "images" / image["file_name"])
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    return folder


def coco(file: Path, content: Any = TRUTH) -> Path:
    file.write_text(json.dumps(content))
    return file


def numbers(given: Path, truth: Path, tmp_path: Path, **options: Any) -> npt.NDArray[np.float64]:
    got = cvjobs.eval(str(given), str(truth), out=str(tmp_path / "out"), **options)
    return np.array([got.metrics[metric] for metric in METRICS], np.float64)


FORMS: dict[str, tuple[str, str, Callable[[Record, Record], list[Any]]]] = {
    "corners of names": (
        *("a.csv", "filename xmin ymin xmax ymax confidence class name"),
        lambda one, image: [image["file_name"], *corners(one), one["score"], one["category_id"] - 1, name(one)],
    ),
    "corners of ids": (
        *("a.parquet", "image_id x1 y1 x2 y2 score category_id"),
        lambda one, _: [one["image_id"], *corners(one), one["score"], one["category_id"]],
    ),
    "corner and size": (
        *("a.tsv", "file_name;bbox_x;bbox_y;bbox_w;bbox_h;label;prob".replace(";", " ")),
        lambda one, image: [f"photos/{image['file_name']}", *one["bbox"], name(one).upper(), one["score"]],
    ),
    "size beside that of the image": (
        *("a.jsonl", "path x y w h width height label score"),
        lambda one, image: [image["file_name"], *one["bbox"], image["width"], image["height"], name(one), one["score"]],
    ),
    "lists as COCO's": (
        *("a.parquet", "image bbox category score"),
        lambda one, image: [image["file_name"], one["bbox"], name(one), one["score"]],
    ),
    "lists of corners as text": (
        *("a.csv", "image bbox_xyxy class_name score"),
        lambda one, image: [image["file_name"], str(corners(one)), name(one), one["score"]],
    ),
    "shares of corners": (
        *("a.csv", "path xmin_norm ymin_norm xmax_norm ymax_norm label score"),
        lambda one, image: [image["file_name"], *shares(corners(one), image), name(one), one["score"]],
    ),
    "shares around a centre": (
        *("a.csv", "Image_Name x_center_n y_center_n width_n height_n label score"),
        lambda one, image: [image["file_name"], *shares(centre(one), image), name(one), one["score"]],
    ),
    "as OpenImages has them": (
        *("a.csv", "ImageID LabelName Score XMin YMin XMax YMax"),
        lambda one, image: [image["file_name"][:-4], name(one), one["score"], *shares(corners(one), image)],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_boxes_of_a_table_have_the_numbers_of_cocos_api(form: str, tmp_path: Path) -> None:
    file, names, of = FORMS[form]
    if file.endswith(".jsonl"):
        rows = [dict(zip(names.split(), of(one, IMAGES[one["image_id"]]), strict=True)) for one in FOUND]
        given = tmp_path / file
        given.write_text("\n".join(map(json.dumps, rows)))
    elif file.endswith(".tsv"):
        given = table(tmp_path / "a.csv", names, of).rename(tmp_path / file)
        given.write_text(given.read_text().replace(",", "\t"))
    else:
        given = table(tmp_path / file, names, of)
    expected = reference(TRUTH, FOUND)
    assert 0.1 < expected[0] < 0.9
    np.testing.assert_allclose(numbers(given, coco(tmp_path / "t.json"), tmp_path), expected, rtol=0, atol=CLOSE)


def test_yolo_labels_with_scores_have_the_numbers_of_cocos_api(tmp_path: Path) -> None:
    given, expected = yolo(tmp_path / "predict", FOUND, scores=True), reference(TRUTH, FOUND)
    for place in (given, given / "labels"):
        got = numbers(place, coco(tmp_path / "t.json"), tmp_path)
        np.testing.assert_allclose(got, expected, rtol=0, atol=CLOSE)
    (given / "classes.txt").rename(tmp_path / "names.txt")
    with pytest.raises(WrongUse, match="has numbers for classes, which the truth has by name: name them with --labels"):
        numbers(given, tmp_path / "t.json", tmp_path)
    got = numbers(given, tmp_path / "t.json", tmp_path, labels=str(tmp_path / "names.txt"))
    np.testing.assert_allclose(got, expected, rtol=0, atol=CLOSE)


def without_crowds() -> Record:
    return {**TRUTH, "annotations": [{**one, "iscrowd": 0} for one in TRUTH["annotations"]]}


def sized(file: Path) -> Path:
    """A table that tells the sizes of images, also of those without a box."""
    table(
        file,
        "path x0 y0 x1 y1 image_width image_height label score",
        lambda one, i: [i["file_name"], *corners(one), i["width"], i["height"], name(one), one["score"]],
    )
    with file.open("a") as opened:
        opened.writelines(f"{i['file_name']},,,,,{i['width']},{i['height']},,\n" for i in TRUTH["images"])
    return file


def test_a_truth_in_shares_has_the_numbers_of_cocos_api_where_images_have_sizes(tmp_path: Path) -> None:
    """They are read from the images beside the labels, and else said by the predictions; or there are none by size."""
    expected = reference(without_crowds(), FOUND)
    given = yolo(tmp_path / "predict", FOUND, scores=True)
    listed = sized(tmp_path / "sized.csv")
    pixels = table(tmp_path / "a.csv", *FORMS["corners of names"][1:])
    whole = yolo(tmp_path / "whole", TRUTH["annotations"], scores=False, images=True)
    bare = yolo(tmp_path / "bare", TRUTH["annotations"], scores=False)
    for predictions in (given, pixels, listed):
        np.testing.assert_allclose(numbers(predictions, whole, tmp_path), expected, rtol=0, atol=CLOSE)
    got = cvjobs.eval(str(given), str(bare), out=str(tmp_path / "out"))
    assert got.metrics["AP"] == pytest.approx(expected[0], abs=CLOSE)
    assert got.metrics["AP_small"] is None
    assert "no numbers by size (AP_small and so on): the sizes of images are not known" in got.notes
    assert json.loads((tmp_path / "out" / "eval.json").read_text())["metrics"]["AR_large"] is None
    with pytest.raises(WrongUse, match=r"are in shares of images, and the size of 'p\d+' is not known: evaluate"):
        numbers(pixels, bare, tmp_path)


def results() -> list[Record]:
    """The detections as a list of COCO's results with names of files for ids, as Ultralytics writes it."""
    return [
        {**one, "image_id": IMAGES[one["image_id"]]["file_name"][:-4], "category_id": one["category_id"] - 1}
        for one in FOUND
    ]


def test_results_that_say_the_sizes_of_images_are_compared_with_yolo(tmp_path: Path) -> None:
    """A list was refused, as if it did not say them; so was a file of which one image had none."""
    truth = yolo(tmp_path / "truth", TRUTH["annotations"], scores=False)
    image = {image["file_name"][:-4]: image for image in TRUTH["images"]}
    expected = reference(without_crowds(), FOUND)[:3]
    told = [{**one, **{side: image[one["image_id"]][side] for side in ("width", "height")}} for one in results()]
    got = numbers(coco(tmp_path / "a.json", told), truth, tmp_path)
    np.testing.assert_allclose(got[:3], expected, rtol=0, atol=CLOSE)
    masks = [
        {**one, "segmentation": {"size": [size["height"], size["width"]], "counts": [size["height"] * size["width"]]}}
        for one in results()
        for size in [image[one["image_id"]]]
    ]
    got = numbers(coco(tmp_path / "b.json", masks), truth, tmp_path)
    np.testing.assert_allclose(got[:3], expected, rtol=0, atol=CLOSE)
    without = {record["image_id"] for record in FOUND}
    listed = [i if i["id"] in without else {k: v for k, v in i.items() if k != "width"} for i in TRUTH["images"]]
    assert listed != TRUTH["images"]
    whole = {**TRUTH, "images": listed, "annotations": FOUND}
    got = numbers(coco(tmp_path / "c.json", whole), truth, tmp_path)
    np.testing.assert_allclose(got[:3], expected, rtol=0, atol=CLOSE)
    with pytest.raises(WrongUse, match=r"the size of 'p\d+' is not known"):
        numbers(coco(tmp_path / "d.json", results()), truth, tmp_path)


def test_ids_that_begin_at_1_are_noticed_beside_yolos(tmp_path: Path) -> None:
    """As Ultralytics writes those of other classes than COCO's."""
    truth = yolo(tmp_path / "truth", TRUTH["annotations"], scores=False, images=True)
    later = [{**one, "category_id": one["category_id"] + 1} for one in results()]
    for found, said in ((results(), False), (later, True)):
        got = cvjobs.eval(str(coco(tmp_path / "a.json", found)), str(truth), out=str(tmp_path / "out"))
        assert any("category ids of the predictions go from 1 to 3" in note for note in got.notes) == said


def test_detections_of_numbers_that_the_truth_does_not_have_are_counted(tmp_path: Path) -> None:
    records = [{**one, "category_id": one["category_id"] - 1} for one in FOUND]
    (tmp_path / "found.json").write_text(json.dumps(records))
    got = cvjobs.eval(str(tmp_path / "found.json"), str(coco(tmp_path / "truth.json")), out=str(tmp_path / "eval"))
    count = sum(one["category_id"] == 0 for one in records)
    assert f"left out: {count} detections of classes that the truth does not have (0)" in got.notes


def test_a_truth_that_is_not_there_is_asked_for_as_the_predictions_are(tmp_path: Path) -> None:
    boxes = table(
        tmp_path / "found.csv",
        "path label score xmin ymin xmax ymax",
        lambda one, image: [image["file_name"], name(one), one["score"], *corners(one)],
    )
    with pytest.raises(WrongUse, match=r"There is no truth at \S+/none\.json: name .*COCO"):
        cvjobs.eval(str(boxes), str(tmp_path / "none.json"))
    (tmp_path / "said.csv").write_text("path,label\na.jpg,cat\n")
    with pytest.raises(WrongUse, match=r"There is no truth at \S+/none\.csv: name .*for each class"):
        cvjobs.eval(str(tmp_path / "said.csv"), str(tmp_path / "none.csv"))


def openimages(folder: Path, *, described: bool) -> Path:
    """The truth as OpenImages has it: ids of classes, and their names in a file beside it."""
    folder.mkdir()
    with (folder / "validation-annotations-bbox.csv").open("w") as file:
        print(
            "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside",
            file=file,
        )
        for one in TRUTH["annotations"]:
            image = IMAGES[one["image_id"]]
            x0, y0, x1, y1 = shares(corners(one), image)
            label = f"/m/0{one['category_id']}"
            print(
                f"{image['file_name'][:-4]},xclick,{label},1,{x0!r},{x1!r},{y0!r},{y1!r},0,0,{one['iscrowd']},-1,0",
                file=file,
            )
    if described:
        lines = [f'/m/0{at + 1},"{name.title()}"' for at, name in enumerate(CLASSES)]
        (folder / "class-descriptions-boxable.csv").write_text("\n".join([*lines, "/m/09,Zebra"]))
    return folder / "validation-annotations-bbox.csv"


def test_openimages_is_a_truth(tmp_path: Path) -> None:
    known = {one["image_id"] for one in TRUTH["annotations"]}  # an image without an object has no line
    expected = reference({**TRUTH, "images": [i for i in TRUTH["images"] if i["id"] in known]}, FOUND)
    truth = openimages(tmp_path / "truth", described=True)
    np.testing.assert_allclose(numbers(sized(tmp_path / "sized.csv"), truth, tmp_path), expected, rtol=0, atol=CLOSE)
    own = table(
        tmp_path / "own.csv",
        "ImageID LabelName Conf XMin XMax YMin YMax",
        lambda one, i: [
            *(i["file_name"][:-4], f"/m/0{one['category_id']}", one["score"]),
            *np.array(shares(corners(one), i))[[0, 2, 1, 3]].tolist(),
        ],
    )
    for beside in (truth, openimages(tmp_path / "undescribed", described=False)):
        got = cvjobs.eval(str(own), str(beside), out=str(tmp_path / "out"))
        assert [got.metrics[m] for m in METRICS[:3]] == pytest.approx(expected[:3].tolist(), abs=CLOSE)
    (tmp_path / "undescribed" / "more.csv").write_text(
        truth.read_text().replace("xclick,/m/01,1,0", "xclick,/m/01,1,x0")
    )
    with pytest.raises(WrongUse, match="is no CSV of OpenImages that can be read"):
        cvjobs.eval(str(own), str(tmp_path / "undescribed" / "more.csv"), out=str(tmp_path / "out"))


def test_yolo_labels_are_compared_with_voc_by_the_sizes_it_tells(tmp_path: Path) -> None:
    (tmp_path / "voc").mkdir()
    for image in TRUTH["images"]:
        things = [
            f"<object><name>{name(one)}</name><bndbox>"
            + "".join(f"<{c}>{v!r}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), corners(one), strict=True))
            + "</bndbox></object>"
            for one in TRUTH["annotations"]
            if one["image_id"] == image["id"]
        ]
        size = f"<size><width>{image['width']}</width><height>{image['height']}</height></size>"
        file = (tmp_path / "voc" / image["file_name"]).with_suffix(".xml")
        file.write_text(f"<annotation>{size}{''.join(things)}</annotation>")
    given = yolo(tmp_path / "predict", FOUND, scores=True)
    got = numbers(given, tmp_path / "voc", tmp_path)
    np.testing.assert_allclose(got, reference(without_crowds(), FOUND), rtol=0, atol=CLOSE)


WRONG_TABLES = {
    "no score": ("path,x0,y0,x1,y1,label\np000.jpg,1,2,30,40,cat\n", "has boxes and no column of the scores"),
    "no class": ("path,x0,y0,x1,y1,score\np000.jpg,1,2,30,40,0.5\n", "has boxes and no column of their classes"),
    "no image": ("x0,y0,x1,y1,score,label\n1,2,30,40,0.5,cat\n", "has boxes and no column of the images"),
    "shares called pixels": (
        "path,xmin,ymin,xmax,ymax,score,label\np000.jpg,0.1,0.1,0.3,0.4,0.5,cat\n",
        "has no value over 1 in xmin, ymin, xmax, ymax, which are pixels: call shares of the image xmin_norm,",
    ),
    "pixels called shares": (
        "path,xn,yn,wn,hn,score,label\np000.jpg,0.1,0.1,0.3,0.4,0.5,cat\np000.jpg,0.1,0.1,30,0.4,0.5,cat\n",
        "line 3 has values over 1 in xn, yn, wn, hn, which are shares",
    ),
    "sizes called corners": (
        "path,x1,y1,x2,y2,score,label\np000.jpg,100,100,30,40,0.5,cat\n",
        "line 2 has a box whose width or height is less than 0 .*x1, y1, x2, y2: corners, in pixels",
    ),
    "a word for a number": (
        "path,x,y,w,h,score,label\np000.jpg,1,2,3,4,0.5,cat\np000.jpg,1,b,3,4,0.5,cat\n",
        "line 3 has a box without four numbers",
    ),
    "a word for a score": (
        "path,x,y,w,h,score,label\np000.jpg,1,2,3,4,high,cat\n",
        "line 2 has a box without a score that is a number",
    ),
    "unknown names of columns": (
        "path,oben,unten,links,rechts,score,label\np000.jpg,1,2,3,4,1,cat\n",
        "has no columns of boxes, which the truth has: call them xmin, ymin, xmax, ymax or x, y, width, height, or",
    ),
    "no word for a class": ("path,x,y,w,h,score,label\np000.jpg,1,2,3,4,1,\n", "line 2 has a box without a class"),
}


@pytest.mark.parametrize("case", WRONG_TABLES)
def test_a_table_that_makes_no_sense_is_one_sentence(case: str, tmp_path: Path) -> None:
    text, sentence = WRONG_TABLES[case]
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(WrongUse, match=sentence):
        numbers(tmp_path / "a.csv", coco(tmp_path / "t.json"), tmp_path)


def test_yolo_labels_without_scores_are_no_predictions(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    for line, sentence in (
        ("0 0.5 0.5 0.2 0.2", "line 1 has no score after its box: write class, x, y, width, height and score"),
        ("0 0.5 0.5 0.2 0.2 17", "line 1 has no score from 0 to 1 at its end"),
        ("7 0.5 0.5 0.2 0.2 0.5", "line 1 has the class 7, and there are names for 3"),
    ):
        (tmp_path / "labels" / "p000.txt").write_text(line)
        with pytest.raises(WrongUse, match=sentence):
            numbers(tmp_path / "labels", coco(tmp_path / "t.json"), tmp_path)


def darknet(folder: Path) -> Path:
    """What CVAT exports: a list of the images, of which one has no file of labels."""
    (folder / "obj_train_data").mkdir(parents=True)
    (folder / "obj.data").write_text(
        "classes = 3\ntrain = data/train.txt\nnames = data/animals.names\nbackup = backup/\n"
    )
    (folder / "animals.names").write_text("\n".join(CLASSES))
    (folder / "train.txt").write_text("".join(f"data/obj_train_data/p00{at}.jpg\n" for at in (0, 1, 9)))
    (folder / "obj_train_data" / "p000.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "obj_train_data" / "p001.txt").write_text("2 0.5 0.5 0.2 0.2\n")
    return folder


def test_a_folder_of_darknet_knows_the_images_of_its_list(tmp_path: Path) -> None:
    """An image without a file of labels has nothing on it; the names are in the file that `obj.data` names."""
    truth = darknet(tmp_path / "truth")
    (tmp_path / "a.csv").write_text(
        "path,xn,yn,wn,hn,label,score\np000.jpg,0.4,0.4,0.2,0.2,cat,0.5\np001.jpg,0.4,0.4,0.2,0.2,dog,0.6\n"
        "p009.jpg,0.4,0.4,0.2,0.2,cat,0.9\n"
    )
    for place in (truth, truth / "obj_train_data"):
        got = cvjobs.eval(str(tmp_path / "a.csv"), str(place))
        assert got.images == {"truth": 3, "evaluated": 3, "failed": 0, "missing": 0, "unknown": 0}
        assert got.metrics["AP"] == pytest.approx(0.75)
        assert not [note for note in got.notes if "left out" in note]
        assert [c["name"] for c in got.classes] == CLASSES
