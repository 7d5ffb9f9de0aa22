"""COCO's JSON as tools write it: every way of writing a file means the same, and what means nothing is one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predictions import output

import cvjobs
from cvjobs.common import rules
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.evaluation import boxes
from cvjobs.evaluation.ground_truth import coco as ground_truth_coco
from cvjobs.evaluation.ground_truth import open as ground_truth_open
from cvjobs.evaluation.predictions import EvaluatedOutput, open_predictions
from cvjobs.images.masks import rle

CATEGORIES = [Category(1, "cat"), Category(2, "dog")]
SIZE = {"width": 100, "height": 200}
BIG = (1 << 53) + 1
Record = dict[str, Any]


def box(x0: float, y0: float, label: int, score: float = 0.9) -> Record:
    mask = rle.encode(np.ones((60, 50), bool), (int(y0), int(x0)), (200, 100))
    corners = {"x0": x0, "y0": y0, "x1": x0 + 50, "y1": y0 + 60}
    return {**corners, "score": score, "category_id": label, "label": CATEGORIES[label - 1].name, "rle": mask}


ROWS = [
    {"path": "photos/a.jpg", **SIZE, "detections": [box(10, 20, 2)]},
    {"path": "photos/b.jpg", **SIZE, "detections": [box(30, 90, 1), box(0, 0, 2, 0.8)]},
    {"path": "photos/c.jpg", **SIZE, "detections": []},
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return output(tmp_path_factory.mktemp("found"), "detect", CATEGORIES, ROWS)


@pytest.fixture(scope="module")
def outlined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return output(tmp_path_factory.mktemp("outlined"), "instance", CATEGORIES, ROWS)


def polygon(x: float, y: float, w: float = 50, h: float = 60) -> list[list[float]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def truth() -> Record:
    """A dog in a, a cat in b, nothing in c: of four numbers that matter here, AP is 1 for cats and 0.5 for dogs."""
    places = [(7, 2, 10, 20), (8, 1, 30, 90), (8, 2, 50, 100)]
    return {
        "images": [{"id": 7 + at, "file_name": f"{name}.jpg", **SIZE} for at, name in enumerate("abc")],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": [x, y, 50, 60], "area": 3000, "iscrowd": 0}
            | {"segmentation": polygon(x, y)}
            for n, (i, c, x, y) in enumerate(places, 1)
        ],
    }


def changed(record: Record, **fields: Any) -> Record:
    """A record with other fields; without those that are ``...``."""
    return {key: value for key, value in {**record, **fields}.items() if value is not ...}


def each(**fields: Any) -> Record:
    return truth() | {"annotations": [changed(annotation, **fields) for annotation in truth()["annotations"]]}


def numbered(of: Any) -> Record:
    """The truth with another id for each image."""
    given = truth()
    for image in given["images"]:
        image["id"] = of(image["id"])
    for annotation in given["annotations"]:
        annotation["image_id"] = of(annotation["image_id"])
    return given


def said(given: Path, content: Record | list[Record] | bytes, tmp_path: Path, name: str = "truth.json") -> Any:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return cvjobs.eval(str(given), str(file), out=str(tmp_path / "out"))


def metrics(evaluation: Any) -> Record:
    return {**evaluation.metrics, **{c["name"]: (c["truths"], c["AP"]) for c in evaluation.classes}}


SAME: dict[str, Any] = {
    "ids above 2^53": numbered(lambda id_: BIG + id_),
    "ids that one float stands for": numbered(lambda id_: BIG - 1 + (id_ - 7)),
    "ids just below 2^64": numbered(lambda id_: (1 << 64) - id_),
    "ids that are whole floats": numbered(float),
    "ids that are text of digits": numbered(str),
    "ids that are text of many digits": numbered(lambda id_: str((1 << 90) + id_)),
    "ids that are text": numbered(lambda id_: f"000a{id_}f"),
    "ids with zeros before them": numbered(lambda id_: f"{id_:06}"),
    "annotations whose ids are text": each()
    | {
        "annotations": [
            {**a, "image_id": f" {a['image_id']}", "category_id": "2" if a["category_id"] == 2 else 1.0}
            for a in truth()["annotations"]
        ]
    },
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(truth()).encode(),
    "UTF-16": json.dumps(truth()).encode("utf-16"),
    "no iscrowd": each(iscrowd=...),
    "null for iscrowd": each(iscrowd=None),
    "false for iscrowd": each(iscrowd=False),
    "no area": each(area=...),
    "null for area": each(area=None),
    "an area that is text": each(area="3000"),
    "boxes of text": each()
    | {"annotations": [{**a, "bbox": [str(n) for n in a["bbox"]]} for a in truth()["annotations"]]},
    "no box beside a polygon": each(bbox=...),
    "an empty box beside a polygon": each(bbox=[]),
    "no segmentation": each(segmentation=...),
    "an empty segmentation": each(segmentation=[]),
    "no id of an annotation": each(id=...),
    "null for the size of an image": truth()
    | {"images": [{**i, "width": None, "height": None} for i in truth()["images"]]},
    "a size that is text": truth() | {"images": [{**i, "width": "100", "height": 200.0} for i in truth()["images"]]},
    "a category twice": truth() | {"categories": truth()["categories"] * 2},
    "two names of a category": truth() | {"categories": [{"id": 2, "name": "wolf"}, *truth()["categories"]]},
    "a root above the categories": truth()
    | {"categories": [{"id": 0, "name": "dog", "supercategory": "none"}, *truth()["categories"]]},
    "more in each record": each(attributes={"occluded": False}, ignore=0, score=None, track_id=1),
}


@pytest.fixture(scope="module")
def plain(found: Path, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The numbers of the truth as it is."""
    return metrics(said(found, truth(), tmp_path_factory.mktemp("plain")))


@pytest.mark.parametrize("what", SAME)
def test_a_file_means_the_same_however_it_is_written(found: Path, plain: Record, tmp_path: Path, what: str) -> None:
    assert metrics(said(found, SAME[what], tmp_path)) == plain


def test_outlines_mean_the_same_however_they_are_written(outlined: Path, tmp_path: Path) -> None:
    plain = said(outlined, truth(), tmp_path)
    assert plain.as_dict()["iou"] == "masks"
    assert metrics(plain)["cat"] == (1, pytest.approx(1.0))
    for form in ("text", "list", "numbers that are floats", "no last zeros"):
        given = truth()
        for annotation in given["annotations"]:
            x, y, w, h = annotation["bbox"]
            mask = np.zeros((200, 100), bool)
            mask[y : y + h, x : x + w] = True
            text = rle.encode(mask, (0, 0), (200, 100))
            flat = np.concatenate([[False], mask.T.ravel(), [False]])
            turns = np.flatnonzero(flat[1:] != flat[:-1])
            counts = np.diff(turns, prepend=0, append=200 * 100).tolist()
            form_of: Record = {"text": text, "list": counts, "numbers that are floats": [float(n) for n in counts]}
            form_of["no last zeros"] = counts[:-1] if len(counts) % 2 else counts
            annotation["segmentation"] = {"size": [200, 100], "counts": form_of[form]}
        assert metrics(said(outlined, given, tmp_path)) == metrics(plain), form


def test_results_name_their_images_by_the_names_of_the_files(tmp_path: Path) -> None:
    given = truth()
    named = {7: "a", 8: "b"}
    records = [
        {key: annotation[key] for key in ("category_id", "bbox")} | {"score": 0.9, "image_id": annotation["image_id"]}
        for annotation in given["annotations"]
    ]
    (tmp_path / "plain.json").write_text(json.dumps(records))
    (tmp_path / "stems.json").write_text(json.dumps([{**r, "image_id": named[r["image_id"]]} for r in records]))
    names = {7: "a.jpg", 8: "b.jpg"}
    (tmp_path / "names.json").write_text(json.dumps([{**r, "image_id": names[r["image_id"]]} for r in records]))
    plain = said(tmp_path / "plain.json", given, tmp_path)
    assert plain.metrics["AP"] == pytest.approx(1.0)
    for name in ("stems.json", "names.json"):
        assert metrics(said(tmp_path / name, given, tmp_path)) == metrics(plain)


def test_results_name_files_of_digits_by_their_numbers(tmp_path: Path) -> None:
    """As by detectors that write `int(stem)` where they can, beside names that are no numbers."""
    given = truth()
    given["images"][0]["file_name"], given["images"][1]["file_name"] = "00008.jpg", "b.jpg"
    records: list[Record] = []
    for annotation, name in zip(given["annotations"], (8, "b", "b"), strict=True):
        records.append({"category_id": annotation["category_id"], "bbox": annotation["bbox"], "score": 0.9})
        records[-1]["image_id"] = name
    (tmp_path / "found.json").write_text(json.dumps(records))
    assert said(tmp_path / "found.json", given, tmp_path).metrics["AP"] == pytest.approx(1.0)


def test_results_of_other_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text(
        json.dumps([{"image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}])
    )
    with pytest.raises(WrongUse, match=r"No image of the predictions is in the truth: .* the predictions are of '99'"):
        said(tmp_path / "found.json", truth(), tmp_path)


def test_without_categories_classes_go_by_number(found: Path, tmp_path: Path) -> None:
    plain = said(found, truth(), tmp_path)
    for given in (changed(truth(), categories=...), changed(truth(), categories=None)):
        got = said(found, given, tmp_path)
        assert got.metrics == plain.metrics
        assert [c["name"] for c in got.classes] == ["1", "2"]
    got = said(found, truth() | {"categories": [{"id": i, "supercategory": "animal"} for i in (1, 2)]}, tmp_path)
    assert got.metrics == plain.metrics


def test_a_crowd_that_is_true_may_be_found_or_not(found: Path, tmp_path: Path) -> None:
    for value in (True, 1, 1.0, "1"):
        got = said(found, each(iscrowd=value), tmp_path)
        assert [c["truths"] for c in got.classes] == [0, 0]
        assert "objects that may be found or not, as they are crowds or difficult: 3 of 3" in got.notes


@pytest.mark.parametrize("other", ["dog", "Dog", "dog ", "DOG_"])
def test_categories_of_one_name_are_one_class(found: Path, tmp_path: Path, other: str) -> None:
    given = truth()
    given["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": other}]
    given["annotations"][2]["category_id"] = 3
    got = said(found, given, tmp_path)
    assert metrics(got) == metrics(said(found, truth(), tmp_path))
    note = f"the truth has several categories of one name, which are one class: {other.strip()}"
    assert note in got.notes


def test_spellings_that_the_model_parts_stay_classes(tmp_path: Path) -> None:
    rows = [{**row, "detections": []} for row in ROWS]
    given = output(tmp_path / "given", "detect", [*CATEGORIES, Category(3, "Dog")], rows)
    content = truth() | {"categories": [*truth()["categories"], {"id": 3, "name": "Dog"}]}
    assert [c["name"] for c in said(given, content, tmp_path).classes] == ["cat", "dog", "Dog"]


def test_predictions_of_before_keep_the_categories_of_one_name(found: Path, tmp_path: Path) -> None:
    newest = open_predictions(str(found), {})
    assert isinstance(newest, EvaluatedOutput)
    (tmp_path / "t.json").write_text(
        json.dumps(truth() | {"categories": [*truth()["categories"], {"id": 3, "name": "dog"}]})
    )
    known = ground_truth_coco.read(tmp_path / "t.json", False)
    assert boxes.by_name(known, replace(newest, rules=rules.FIRST)) is known
    assert len(boxes.by_name(known, newest).categories) == 2


def test_a_category_with_two_names_has_the_last(found: Path, tmp_path: Path) -> None:
    got = said(found, SAME["two names of a category"], tmp_path)
    assert "the truth names category 2 'wolf' and 'dog': the last name counts, as in COCO's API" in got.notes


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (each(bbox=[1, None, 2, 3]), "has a bbox that is no [x, y, width, height] in record 1 of 3"),
        (each(bbox=[0, 0, 1e300, 1e300]), "has a bbox that is no [x, y, width, height] in record 1 of 3"),
        (each(bbox=..., segmentation=...), "has a bbox that is no [x, y, width, height] in record 1 of 3"),
        (each(image_id=None), "has no usable 'image_id' in annotation 1 of 3"),
        (each(image_id=7.5), "has no usable 'image_id' in annotation 1 of 3"),
        (each(image_id=True, iscrowd="x"), "image_id 1, which it does not describe"),
        (each(iscrowd="no"), "has no usable 'iscrowd' in annotation 1 of 3"),
        (each(category_id=3), "category 3, which it does not describe"),
        (each(image_id="a\nb"), "has an annotation with the image_id 'a\\nb', which it does not describe"),
        (numbered(lambda _: float(BIG)), "gives one id to several images"),
        (changed(truth(), annotations=...), "is no COCO annotation file: it has no lists images, annotations"),
        (truth() | {"categories": {"1": "cat"}}, "has categories that are no list"),
        (truth() | {"categories": ["cat", "dog"]}, "has no usable 'id' in category 1 of 2"),
    ],
)
def test_what_means_nothing_is_one_sentence(tmp_path: Path, given: Record, sentence: str) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(given))
    with pytest.raises(WrongUse) as error:
        ground_truth_open.read(str(tmp_path / "truth.json"), "detect")
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"segmentation": {"size": [100, 200], "counts": [0, 20000]}},
            "100 rows and 200 columns in an image of 200 and 100",
        ),
        ({"segmentation": {"size": [200, 100], "counts": 10**12}}, "makes no sense in annotation 1"),
        # Run lengths of another sum were compared for ever.
        ({"segmentation": {"size": [200, 100], "counts": [19900, 200, 1]}}, "are not those of its size"),
        ({"segmentation": {"size": [200, 100], "counts": [100, -20, 5]}}, "are not those of its size"),
        ({"segmentation": {"size": [200, 100], "counts": "0d3"}}, "are not those of a mask of 100 x 200 pixels"),
        ({"segmentation": {"size": [200, 100], "counts": "\udc80"}}, "makes no sense in annotation 1"),
        ({"segmentation": [[1, 2, 3, "x"]]}, "makes no sense in annotation 1"),
        ({"segmentation": [10, 20, 60, 20, 60, 80]}, "makes no sense in annotation 1"),
    ],
)
def test_an_outline_that_means_nothing_is_one_sentence(tmp_path: Path, changes: Record, sentence: str) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(each(**changes)))
    with pytest.raises(WrongUse) as error:
        ground_truth_open.read(str(tmp_path / "truth.json"), "instance")
    assert sentence in str(error.value)


def test_a_polygon_needs_the_size_of_its_image(outlined: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="its image has no usable width and height"):
        said(outlined, SAME["null for the size of an image"], tmp_path)
