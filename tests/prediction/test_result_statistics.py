"""What the page of detections, masks and labels counts, and which images it shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from predictions import CATEGORIES, detection

from cvjobs.dataset import schema
from cvjobs.prediction.report import result_pictures, result_statistics
from cvjobs.prediction.report.result_statistics import COUNTS, SIDES, Statistics


def detections(*images: Sequence[dict[str, Any]] | None) -> pa.Table:
    return pa.table({"detections": pa.array(images, schema.SCHEMAS["detect"].field(0).type)})


def test_detections_are_counted_by_score_class_size_and_image() -> None:
    one = [detection(0, 0, 10, 10, 0.9), detection(0, 0, 96, 96, 0.5, 2), detection(5, 5, 5, 9, 0.1, 99)]
    found = result_statistics.of(
        "detect", CATEGORIES, [detections(one, [], None), detections([detection(0, 0, 50, 50, 1.0)])]
    )
    assert (found.images, found.empty, found.things) == (4, 2, 4)
    assert found.classes == {1: 2, 2: 1, 99: 1}
    assert found.scores.sum() == 4
    assert found.scores[-1] == found.scores[45] == found.scores[25] == found.scores[5] == 1
    sides = {SIDES[i]: n for i, n in enumerate(found.sides.tolist()) if n}
    assert sides == {0: 1, 8: 1, 32: 1, 96: 1}
    assert {COUNTS[i]: n for i, n in enumerate(found.counts.tolist()) if n} == {0: 2, 1: 1, 3: 1}
    assert [(pick.row, round(pick.score, 2)) for pick in found.lowest] == [(0, 0.9), (3, 1.0)]
    assert [pick.row for pick in found.without] == [1, 2]
    assert Statistics.load(json.loads(json.dumps(found.record()))).record() == found.record()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, 7.0])
def test_numbers_that_make_no_sense_are_no_error(bad: float) -> None:
    rows = [[detection(bad, 0, 10, bad, bad, -5)], [{**detection(0, 0, 1, 1, 0.5), "score": None, "category_id": None}]]
    found = result_statistics.of("detect", CATEGORIES, [detections(*rows)])
    assert (found.images, found.things) == (2, 2)
    assert result_statistics.of("detect", [], [detections()]).images == 0
    assert result_statistics.of("detect", [], []).images == 0


def test_pixels_of_known_classes_are_counted_and_the_background_is_not() -> None:
    def image(*areas: tuple[int, int]) -> list[dict[str, Any]]:
        return [{"category_id": i, "label": "x", "pixels": n} for i, n in areas]

    classes = pa.array([image((0, 60), (1, 40)), image((0, 100)), image((1, 50), (7, 50))])
    classes = classes.cast(schema.SCHEMAS["semantic"].field("classes").type)
    table = pa.table({"width": pa.array([10] * 3), "height": pa.array([10] * 3), "classes": classes})
    found = result_statistics.of("semantic", CATEGORIES, [table])
    assert (found.images, found.empty, found.things, found.pixels) == (3, 1, 140, 300)
    assert found.classes == {1: 90, 7: 50}
    assert [(pick.row, pick.score) for pick in found.lowest] == [(0, 0.4), (2, 1.0)]


def test_labels_are_counted_by_name() -> None:
    table = pa.table({"label": ["cat", None, "cat", "line\nbreak", "never heard of"], "score": [0.5, None, 0.7, 1, 0]})
    found = result_statistics.of("classify", CATEGORIES, [table])
    assert (found.images, found.empty, found.things) == (5, 1, 4)
    assert found.classes == {1: 2, 7: 1, -1: 1}


def scored(scores: Sequence[float]) -> Statistics:
    rows = [[detection(0, 0, 9, 9, s)] if np.isfinite(s) else [] for s in scores]
    return result_statistics.of("detect", CATEGORIES, [detections(*rows)])


def test_the_lowest_median_and_highest_of_all_files_are_chosen() -> None:
    random = np.random.default_rng(0)
    scores = {"a": random.random(900), "b": random.random(90), "c": random.random(10) / 100}
    chosen = result_pictures.choose({name: scored(list(s)) for name, s in scores.items()})
    ranked = sorted((float(np.float32(s)), (name, i)) for name, all_ in scores.items() for i, s in enumerate(all_))
    places = [place for _, place in ranked]
    assert chosen["lowest"] == places[:8]
    assert chosen["highest"] == places[-8:][::-1]
    assert len(chosen["median"]) == 8
    assert all(400 < places.index(place) < 600 for place in chosen["median"])
    assert chosen["without"] == []


@pytest.mark.parametrize("count", [0, 1, 5, 24, 25, 30])
def test_few_images_are_shown_once_each(count: int) -> None:
    chosen = result_pictures.choose({"a": scored([i / 100 for i in range(count)] + [float("nan")] * 6)})
    places = [place for row in chosen.values() for place in row]
    assert len(places) == len(set(places)) == min(count, 24) + 4
    assert len(chosen["without"]) == 4
    if count <= 24:
        assert [row for _, row in chosen["all"]] == list(range(count))
