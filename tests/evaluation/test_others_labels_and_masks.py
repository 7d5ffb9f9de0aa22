"""Labels and class maps that other tools predicted: their numbers are those of our own output of the same results."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from predictions import output

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.images.masks import png

LABELS = ["cat", "dog", "Hot dog", "4", "bird", "cow"]


def labelled() -> dict[str, list[tuple[str, float]]]:
    """The labels of thirty images, best first."""
    random = np.random.default_rng(1)
    found = {}
    for at in range(30):
        order = random.permutation(LABELS).tolist()
        found[f"b/{at:02d}.jpg"] = list(zip(order, (0.9 - 0.1 * np.arange(6)).tolist(), strict=True))
    return found


def labels_output(folder: Path, found: dict[str, list[tuple[str, float]]]) -> Path:
    rows = [
        {
            "path": path,
            "width": 9,
            "height": 9,
            "label": top[0][0],
            "score": top[0][1],
            "top": [{"label": label, "score": score} for label, score in top],
        }
        for path, top in found.items()
    ]
    return output(folder, "classify", [Category(at, label) for at, label in enumerate(LABELS)], rows)


def test_labels_of_a_table_have_the_numbers_of_our_own_output(tmp_path: Path) -> None:
    found = labelled()
    truth = tmp_path / "truth.csv"
    random = np.random.default_rng(2)
    truth.write_text("path,label\n" + "".join(f"{path},{random.choice(LABELS)}\n" for path in found))
    expected = cvjobs.eval(str(labels_output(tmp_path / "ours", found)), str(truth)).metrics
    assert 0 < expected["top-1"] < expected["top-5"] < 1
    long = [(path, label, score) for path, top in found.items() for label, score in top]
    random.shuffle(long)
    one_each = pa.table(dict(zip(("Image Name", "Prediction", "Confidence"), zip(*long, strict=True), strict=True)))
    wide = pa.table(
        {
            "filename": list(found),
            **{f"label_{at}": [top[at][0] for top in found.values()] for at in range(6)},
            **{f"prob_{at}": [top[at][1] for top in found.values()] for at in range(6)},
        }
    )
    lists = pa.table(
        {
            "path": list(found),
            "label": [[label for label, _ in top] for top in found.values()],
            "score": [[score for _, score in top] for top in found.values()],
        }
    )
    pq.write_table(one_each.rename_columns(["path", "label", "score"]), tmp_path / "plain.parquet")
    for name, rows in {"long": one_each, "wide": wide, "lists": lists}.items():
        pq.write_table(rows, tmp_path / f"{name}.parquet")
    for name in ("plain", "long", "wide", "lists"):
        assert cvjobs.eval(str(tmp_path / f"{name}.parquet"), str(truth)).metrics == pytest.approx(
            expected, abs=1e-6
        ), name
    with (tmp_path / "long.csv").open("w", newline="") as file:
        csv.writer(file).writerows([one_each.column_names, *long])
    got = cvjobs.eval(str(tmp_path / "long.csv"), str(truth))
    assert got.metrics == pytest.approx(expected, abs=1e-6)
    assert "labels are read from Prediction, scores from Confidence" in got.notes
    (tmp_path / "both.csv").write_text("path,label,prediction\nb/01.jpg,cat,dog\n")
    got = cvjobs.eval(str(tmp_path / "both.csv"), str(truth))
    assert "labels are read from label; if prediction is meant, call it predicted" in got.notes


def test_labels_with_boxes_of_crops_beside_them_are_labels_where_the_truth_has_labels(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,x1,y1,x2,y2,label\na.jpg,1,2,3,4,cat\nb.jpg,1,2,3,4,dog\n")
    (tmp_path / "t.csv").write_text("path,label\na.jpg,cat\nb.jpg,cat\n")
    assert cvjobs.eval(str(tmp_path / "a.csv"), str(tmp_path / "t.csv")).metrics["top-1"] == 0.5


def maps(seed: int, values: list[int]) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {f"m{at}": random.choice(values, (20, 30)).astype(np.uint8) for at in range(34)}


def put(folder: Path, found: dict[str, Any]) -> Path:
    folder.mkdir()
    for stem, pixels in found.items():
        Image.fromarray(pixels).save(folder / f"{stem}.png")
    return folder


def test_a_folder_of_masks_has_the_numbers_of_our_own_output(tmp_path: Path) -> None:
    categories = [Category(at, text) for at, text in enumerate(["background", "person", "dog"])]
    given, known = maps(1, [0, 1, 2]), maps(2, [0, 1, 1, 2, 255])
    known["missing"] = np.ones((20, 30), np.uint8)
    given["m7"] = given["m7"][:10]
    rows = [
        {"path": f"{stem}.jpg", "width": 30, "height": len(ids), "class_map": png.encode(ids), "classes": []}
        for stem, ids in given.items()
    ]
    ours = output(tmp_path / "ours", "semantic", categories, rows)
    masks, truth = put(tmp_path / "masks", given), put(tmp_path / "truth", known)
    expected = cvjobs.eval(str(ours), str(truth))
    got = cvjobs.eval(str(masks), str(truth))
    assert (got.metrics, got.images) == (expected.metrics, expected.images)
    assert got.sides.out == str(tmp_path / "masks_eval")
    assert 0.1 < expected.metrics["mIoU"] < 0.9
    for folder in (masks, truth):
        (folder / "classes.txt").write_text("background\nperson\ndog\n")
    assert cvjobs.eval(str(masks), str(truth)).metrics == expected.metrics
    (masks / "val.txt").write_text("2007_000032\n2007_000033\n")  # VOC's list of images, no labels of YOLO
    assert cvjobs.eval(str(masks), str(truth)).metrics == expected.metrics
    Image.new("RGB", (30, 20)).save(masks / "m3.png")
    with pytest.raises(WrongUse, match=r"m3\.png has colours \(mode RGB\): write a class id in each pixel"):
        cvjobs.eval(str(masks), str(truth))


def test_masks_of_black_and_white_are_the_class_1(tmp_path: Path) -> None:
    """As in a truth; all of it counted as none of the classes."""
    given, known = maps(1, [0, 1]), maps(2, [0, 1])
    truth = put(tmp_path / "truth", known)
    expected = cvjobs.eval(str(put(tmp_path / "plain", given)), str(truth)).metrics
    white = put(tmp_path / "white", {stem: ids * 255 for stem, ids in given.items()})
    got = cvjobs.eval(str(white), str(truth))
    assert got.metrics == expected
    assert "255 is the class 1: the predictions hold nothing else but 0" in got.notes


@pytest.mark.parametrize("names", [None, ["sky", "road", "car", "dog"]])
def test_pixels_of_classes_that_the_truth_does_not_have_are_counted(tmp_path: Path, names: list[str] | None) -> None:
    there = np.array([[0, 1, 1], [2, 2, 2]], np.uint16)
    truth = put(tmp_path / "truth", {"a": there, "b": there})
    given = put(
        tmp_path / "given",
        {"a": np.where(there == 2, np.uint16(300), there), "b": np.where(there == 1, np.uint16(7), there)},
    )
    if names:
        (truth / "classes.txt").write_text("\n".join(names))
    found = cvjobs.eval(str(given), str(truth), out=str(tmp_path / "eval"))
    count, what = (5, "class 300, class 7") if names else (3, "class 300")  # without names 7 is a class of its own
    assert f"classes that the truth does not have: {count} pixels taken for {what}" in found.notes


def test_masks_of_segment_are_predictions(tmp_path: Path) -> None:
    known = maps(2, [0, 1])
    folder = put(tmp_path / "masks", {f"{stem}.jpg": ids for stem, ids in known.items()})
    (folder / ".cvjobs-masks").mkdir()
    assert cvjobs.eval(str(folder), str(put(tmp_path / "truth", known))).metrics["mIoU"] == 1
