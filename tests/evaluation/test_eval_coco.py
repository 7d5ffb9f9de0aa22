"""The numbers of boxes and masks are those of COCO's API, whatever the sets look like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_reference import reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from predictions import output
from pycocotools import mask as rles

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.evaluation.metrics import coco_ap
from cvjobs.evaluation.metrics.coco_ap import METRICS
from cvjobs.evaluation.metrics.objects import Detections, Truths

pytestmark = pytest.mark.slow

Record = dict[str, Any]
CLOSE = 1e-9


def numbers(scores: coco_ap.DetectionScores) -> list[float]:
    return [scores.average(name) for name in METRICS]


def ours(truth: Record, found: list[Record]) -> list[float]:
    """What our arithmetic says of the same; ids are positions, from 1."""

    def column(records: list[Record], name: str) -> Any:
        return np.array([record[name] for record in records])

    def integers(records: list[Record], name: str) -> Any:
        return column(records, name).astype(np.int64).reshape(-1) - 1

    annotations = truth["annotations"]
    crowd = column(annotations, "iscrowd").astype(bool)
    boxes = column(found, "bbox").astype(float).reshape(-1, 4)
    return numbers(
        coco_ap.evaluate(
            Truths(
                image=integers(annotations, "image_id"),
                category=integers(annotations, "category_id"),
                boxes=column(annotations, "bbox").astype(float).reshape(-1, 4),
                area=column(annotations, "area").astype(float),
                crowd=crowd,
                ignored=crowd,
                unnumbered=integers(annotations, "id") == -1,
            ),
            Detections(
                image=integers(found, "image_id"),
                category=integers(found, "category_id"),
                boxes=boxes,
                area=boxes[:, 2] * boxes[:, 3],
                score=column(found, "score").astype(float),
            ),
            len(truth["categories"]),
        )
    )


# Small numbers, so that boxes meet, coincide, are empty or lie exactly on the bounds of the areas (32 and 96).
SIDES = st.sampled_from([0, 1, 5, 16, 31, 32, 33, 64, 95, 96, 97, 150])
PLACES = st.integers(0, 40)


@st.composite
def sets(draw: st.DrawFn) -> tuple[Record, list[Record]]:
    """A truth and detections of up to four images and three categories, some of them moved copies of the truth."""
    images, categories = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    place = st.tuples(st.integers(1, images), st.integers(1, categories))
    boxes = st.tuples(PLACES, PLACES, SIDES, SIDES)
    first = draw(st.sampled_from([0, 1]))
    annotations: list[Record] = [
        {"id": number + first, "image_id": i, "category_id": c, "bbox": list(b), "area": a or b[2] * b[3], "iscrowd": w}
        for number, ((i, c), b, a, w) in enumerate(
            draw(st.lists(st.tuples(place, boxes, st.sampled_from([0, 0, 500, 5000]), st.sampled_from([0, 0, 0, 1]))))
        )
    ]
    score = st.sampled_from([0.1, 0.25, 0.25, 0.5, 0.9])
    found = [
        {"image_id": i, "category_id": c, "bbox": list(b), "score": s}
        for (i, c), b, s in draw(st.lists(st.tuples(place, boxes, score), max_size=20))
    ]
    if annotations:
        for number, dx, dw, s in draw(
            st.lists(st.tuples(st.integers(0), st.integers(-3, 3), st.integers(0, 3), score), max_size=20)
        ):
            chosen: Record = annotations[number % len(annotations)]
            x, y, w, h = chosen["bbox"]
            place_ = {name: chosen[name] for name in ("image_id", "category_id")}
            found.append({**place_, "bbox": [x + dx, y, w + dw, h], "score": s})
    truth = {
        "images": [{"id": i + 1} for i in range(images)],
        "categories": [{"id": c + 1, "name": f"c{c}"} for c in range(categories)],
        "annotations": annotations,
    }
    return truth, found


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sets())
def test_boxes_equal_pycocotools(both: tuple[Record, list[Record]]) -> None:
    truth, found = both
    np.testing.assert_allclose(ours(truth, found), reference(truth, found), rtol=0, atol=CLOSE)


def many(seed: int) -> tuple[Record, list[Record]]:
    """Images with far over 100 detections of a category, and none without ties."""
    random = np.random.default_rng(seed)
    annotations = [
        {"id": n + 1, "image_id": 1 + n % 3, "category_id": 1 + n % 2, "bbox": box, "area": box[2] * box[3]}
        | {"iscrowd": int(n % 9 == 0)}
        for n, box in enumerate(
            np.column_stack([random.integers(0, 300, (90, 2)), random.integers(4, 130, (90, 2))]).tolist()
        )
    ]
    found = []
    for _ in range(900):
        source = annotations[random.integers(90)]
        box = (np.array(source["bbox"]) + random.normal(0, 3, 4)).clip(0).tolist()
        near = {"image_id": source["image_id"], "category_id": source["category_id"]}
        found.append({**near, "bbox": box, "score": float(random.integers(0, 30) / 30)})
    truth = {"images": [{"id": i} for i in (1, 2, 3, 4)], "categories": [{"id": c, "name": f"c{c}"} for c in (1, 2, 3)]}
    return {**truth, "annotations": annotations}, found


def test_over_a_hundred_detections_of_an_image_equal_pycocotools() -> None:
    truth, found = many(0)
    expected = reference(truth, found)
    assert expected.min() > 0
    np.testing.assert_allclose(ours(truth, found), expected, rtol=0, atol=CLOSE)


def named(truth: Record) -> Record:
    """The truth with images of 480x480 pixels and names."""
    images = [
        {**image, "file_name": f"photo{image['id']}.jpg", "width": 480, "height": 480} for image in truth["images"]
    ]
    return {**truth, "images": images}


def nested(truth: Record, found: list[Record]) -> list[Record]:
    """Detections as the rows of an output; what pycocotools gets are the same float32 numbers."""
    rows = []
    for image in truth["images"]:
        here = [f for f in found if f["image_id"] == image["id"]]
        rows.append({"path": image["file_name"], "width": 480, "height": 480, "detections": [row(f) for f in here]})
    return rows


def row(found: Record) -> Record:
    x, y, w, h = found["bbox"]
    corners = dict(zip(("x0", "y0", "x1", "y1"), np.array([x, y, x + w, y + h], np.float32).tolist(), strict=True))
    more = {"score": float(np.float32(found["score"])), "category_id": found["category_id"] + 10}
    return {**corners, **more, "label": f"c{found['category_id']}", "rle": found.get("rle")}


def rounded(found: list[Record]) -> list[Record]:
    """Detections with the float32 numbers that an output holds, as an export writes them."""
    said = []
    for record in found:
        r = row(record)
        box = [r["x0"], r["y0"], r["x1"] - r["x0"], r["y1"] - r["y0"]]
        said.append(
            {"image_id": record["image_id"], "category_id": record["category_id"], "bbox": box, "score": r["score"]}
        )
    return said


CATEGORIES = [Category(11, "c1"), Category(12, "C1 "), Category(12, "c2"), Category(99, "else")]


def test_an_output_its_results_file_and_pycocotools_agree(tmp_path: Path) -> None:
    truth, found = many(1)
    truth = named(truth)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    output(tmp_path / "out", "detect", [CATEGORIES[0], *CATEGORIES[2:]], nested(truth, found))
    expected = reference(truth, rounded(found))
    from_output = cvjobs.eval(str(tmp_path / "out"), str(tmp_path / "truth.json"))
    np.testing.assert_allclose([from_output.metrics[name] for name in METRICS], expected, rtol=0, atol=CLOSE)
    assert from_output.to_arrow(["name", "AP"]).to_pylist() == [
        {n: c[n] for n in ("name", "AP")} for c in from_output.classes
    ]
    (tmp_path / "results.json").write_text(json.dumps(rounded(found)))
    from_file = cvjobs.eval(str(tmp_path / "results.json"), str(tmp_path / "truth.json"))
    np.testing.assert_allclose([from_file.metrics[name] for name in METRICS], expected, rtol=0, atol=CLOSE)
    written = json.loads((tmp_path / "out" / "eval" / "eval.json").read_text())
    assert written["metrics"] == from_output.metrics
    assert written["images"] == {"truth": 4, "evaluated": 4, "failed": 0, "missing": 0, "unknown": 0}


def outlined(seed: int) -> tuple[Record, list[Record]]:
    """Polygons, some of two pieces, crowds as run lengths; masks that overlap them."""
    truth, found = many(seed)
    truth = named(truth)
    random = np.random.default_rng(seed)
    for annotation in truth["annotations"]:
        x, y, w, h = annotation["bbox"]
        polygon = [x, y, x + w, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h]
        annotation["segmentation"] = [polygon]
        if random.random() < 0.2:
            annotation["segmentation"].append([x + w, y, x + w + 9, y, x + w + 9, y + 9.5])
        if annotation["iscrowd"]:
            mask = np.zeros((480, 480), np.uint8)
            mask[int(y) : int(y + h), int(x) : int(x + w)] = 1
            flat = np.concatenate([[0], mask.T.ravel(), [0]]).astype(int)
            edges = np.flatnonzero(np.diff(flat))
            annotation["segmentation"] = {"size": [480, 480], "counts": np.diff([0, *edges, 480 * 480]).tolist()}
    for record in found:
        x, y, w, h = record["bbox"]
        pieces = rles.frPyObjects([[x, y, x + w, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h]], 480, 480)
        record["segmentation"] = {"size": [480, 480], "counts": rles.merge(pieces)["counts"].decode()}
        record["rle"] = record["segmentation"]["counts"]
    return truth, found


def test_masks_equal_pycocotools(tmp_path: Path) -> None:
    truth, found = outlined(2)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    output(tmp_path / "out", "instance", [CATEGORIES[0], *CATEGORIES[2:]], nested(truth, found))
    names = ("image_id", "category_id", "segmentation")
    plain = [{**{n: f[n] for n in names}, "score": row(f)["score"]} for f in found]
    expected = reference(truth, plain, "segm")
    assert expected.min() > 0
    got = cvjobs.eval(str(tmp_path / "out"), str(tmp_path / "truth.json"))
    np.testing.assert_allclose([got.metrics[name] for name in METRICS], expected, rtol=0, atol=CLOSE)
    boxes = reference(truth, rounded(found))
    np.testing.assert_allclose([got.as_dict()["boxes"][name] for name in METRICS], boxes, rtol=0, atol=CLOSE)
    for results in (plain, [{**p, "bbox": f["bbox"]} for p, f in zip(plain, found, strict=True)]):
        (tmp_path / "results.json").write_text(json.dumps(results))
        expected = reference(truth, results, "segm")
        got = cvjobs.eval(str(tmp_path / "results.json"), str(tmp_path / "truth.json"))
        np.testing.assert_allclose([got.metrics[name] for name in METRICS], expected, rtol=0, atol=CLOSE)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # Two truths: one found at once, one after a false alarm; a third detection repeats the first.
        ([("a", 0.9), ("far", 0.8), ("b", 0.7)], (1 + 2 / 3) / 2),
        ([("a", 0.9), ("a", 0.8), ("b", 0.7)], (1 + 2 / 3) / 2),
        ([("far", 0.9)], 0.0),
        ([("a", 0.9), ("b", 0.8)], 1.0),
    ],
)
def test_the_ap_of_voc_is_the_area_under_the_envelope(found: list[tuple[str, float]], expected: float) -> None:
    places = {"a": [0, 0, 50, 50], "b": [100, 100, 50, 50], "far": [300, 300, 50, 50]}
    boxes = np.array([places["a"], places["b"]], float)
    none = np.zeros(2, bool)
    truths = Truths(
        image=np.zeros(2, np.int64),
        category=np.zeros(2, np.int64),
        boxes=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        crowd=none,
        ignored=none,
        unnumbered=none,
    )
    corners = np.array([places[name] for name, _ in found], float)
    zeros = np.zeros(len(found), np.int64)
    scores = np.array([score for _, score in found])
    detections = Detections(
        image=zeros, category=zeros, boxes=corners, area=corners[:, 2] * corners[:, 3], score=scores
    )
    assert coco_ap.evaluate(truths, detections, 1).average("VOC_AP50") == pytest.approx(expected)
