"""Classes that fit by number: both lists are said, names that disagree are refused, and colours have names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import here, sentence
from PIL import Image
from predictions import detection, output

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.common.rules import FIRST
from cvjobs.evaluation import pixels
from cvjobs.evaluation.ground_truth import open as ground_truth_open
from cvjobs.evaluation.ground_truth.types import PixelTruth
from cvjobs.evaluation.predictions import EvaluatedOutput, open_predictions
from cvjobs.evaluation.void import Void
from cvjobs.images.masks import png
from cvjobs.prediction.side_folder import beside
from cvjobs.prediction.summary import Summary

VOC = ["__background__", "aeroplane", "bicycle", "bird"]
CATEGORIES = [Category(at, name) for at, name in enumerate(VOC)]
SENTENCE = (
    "classes fit by number, as the truth has no names: the predictions have 0 __background__, 1 aeroplane, 2 bicycle, "
    "3 bird, the truth 0, 1, 7; --labels FILE names the truth's"
)


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """An output of class maps, with its photo beside it, and a mask of another data set's numbers."""
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "photos/a.png")
    predicted = np.zeros((40, 60), np.uint8)
    predicted[:, 30:] = 3
    row = {"path": "a.png", "width": 60, "height": 40, "class_map": png.encode(predicted), "classes": []}
    output(tmp_path / "maps", "semantic", CATEGORIES, [row], source=tmp_path / "photos")
    (tmp_path / "data/masks").mkdir(parents=True)
    truth = np.zeros((40, 60), np.uint8)
    truth[10:, 20:] = 1
    truth[30:] = 7
    Image.fromarray(truth).save(tmp_path / "data/masks/a.png")
    return tmp_path


def test_both_lists_are_said_on_the_terminal_in_the_record_and_on_the_page(maps: Path) -> None:
    ended = here("eval", maps / "maps", maps / "data/masks", "-o", maps / "out")
    assert ended.code == 0, ended
    assert SENTENCE in ended.out
    assert "numbers of the truth that are no class of the predictions: 7" in ended.out
    record = json.loads((maps / "out/eval.json").read_text())
    assert record["classes_fit"] == {
        "by": "number",
        "predictions": [[at, name] for at, name in enumerate(VOC)],
        "truth": [[0, None], [1, None], [7, None]],
    }
    page = (maps / "out/eval.html").read_text()
    assert "Which class is which" in page
    assert "is there, without a name" in page
    assert "no class" in page


@pytest.mark.parametrize("place", ["data/masks", "data"])
@pytest.mark.parametrize("names", ["Animal\nArchway\nAeroplane\n", "Animal\nArchway\n"])
def test_names_beside_the_masks_that_disagree_are_refused(maps: Path, place: str, names: str) -> None:
    (maps / place / "codes.txt").write_text(names)
    said = sentence(here("eval", maps / "maps", maps / "data/masks", "-o", maps / "out"), 2)
    assert "0 __background__, 1 aeroplane, 2 bicycle and 1 more" in said
    assert f"--labels {maps / place / 'codes.txt'}" in said
    assert ("'aeroplane' is 1 in the predictions and 2 there" if "Aeroplane" in names else "no name is in both") in said


def test_names_beside_the_masks_that_agree_are_said(maps: Path) -> None:
    (maps / "data/codes.txt").write_text("void\nAeroplane\nvelo\n")
    found = cvjobs.eval(str(maps / "maps"), str(maps / "data/masks"), out=str(maps / "out"))
    assert any("the truth 0 void, 1 Aeroplane, 7;" in note for note in found.notes)


def test_an_output_that_was_begun_before_is_evaluated_as_then(maps: Path) -> None:
    (maps / "data/codes.txt").write_text("Animal\nArchway\n")
    given = open_predictions(str(maps / "maps"), {})
    truth = ground_truth_open.read(str(maps / "data/masks"), "semantic")
    assert isinstance(given, EvaluatedOutput)
    assert isinstance(truth, PixelTruth)
    void = Void(value=None)
    with pytest.raises(WrongUse, match="no name is in both"):
        pixels.evaluate(truth, given, void)
    assert pixels.evaluate(truth, replace(given, rules=FIRST), void).matrix.counts.sum() == 2400


def test_names_given_for_the_masks_fit_by_name(maps: Path) -> None:
    (maps / "names.txt").write_text("__background__\nBird\nx2\nx3\nx4\nx5\nx6\ntree\n")
    found = cvjobs.eval(str(maps / "maps"), str(maps / "data/masks"), labels=str(maps / "names.txt"))
    assert not any("by number" in note for note in found.notes)
    assert "classes_fit" not in found.as_dict()


def test_masks_that_segment_wrote_know_their_names(maps: Path) -> None:
    other = [Category(0, "__background__"), Category(1, "bird"), Category(2, "aeroplane")]
    pixels_ = np.zeros((40, 60), np.uint8)
    pixels_[:, 30:] = 1
    row = {"path": "a.png", "width": 60, "height": 40, "class_map": png.encode(pixels_), "classes": []}
    output(maps / "other", "semantic", other, [row])
    none: dict[str, Any] = dict.fromkeys(("failed", "skipped", "remaining", "reused", "exit_code"), 0)
    done = Summary(
        **none, listed=1, ok=1, computed=1, version=1, seconds=0.0, images_per_second=0.0, out=str(maps / "other")
    )
    assert beside.complete(done, (maps / "written", None), (), 80_000_000).masks == 1
    found = cvjobs.eval(str(maps / "maps"), str(maps / "written"), out=str(maps / "out"))
    assert found.metrics["pixel accuracy"] == 1.0
    assert "classes_fit" not in found.as_dict()


def test_numbers_of_boxes_and_of_labels_are_said_too(tmp_path: Path) -> None:
    rows = [{"path": "a.jpg", "width": 20, "height": 20, "detections": [detection(2, 2, 12, 12, 0.9)]}]
    output(tmp_path / "boxes", "detect", [Category(1, "cat"), Category(2, "dog")], rows)
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo/a.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.35 0.35 0.5 0.5\n")
    found = cvjobs.eval(str(tmp_path / "boxes"), str(tmp_path / "yolo"), out=str(tmp_path / "out"))
    assert any("the predictions have 1 cat, 2 dog, the truth 0, 1; --labels" in note for note in found.notes)
    assert "numbers of the truth that are no class of the predictions: 0" in found.notes

    top = [{"label": "dog", "score": 1.0}]
    row = {"path": "a.jpg", "width": 8, "height": 8, "label": "dog", "score": 1.0, "top": top}
    output(tmp_path / "labels", "classify", [Category(0, "cat"), Category(1, "dog")], [row])
    (tmp_path / "truth.csv").write_text("path,label\na.jpg,1\n")
    found = cvjobs.eval(str(tmp_path / "labels"), str(tmp_path / "truth.csv"), out=str(tmp_path / "out2"))
    assert found.metrics["top-1"] == 1.0
    assert any("the truth 1; write names for the numbers" in note for note in found.notes)


def legends(page: str) -> list[list[str]]:
    """The names in the legend under each picture."""
    figures: list[Any] = page.split('<figure class="picture"')[1:]
    return [
        [
            piece.partition("</span>")[0].partition(">")[2]
            for piece in figure.partition("</figure>")[0].split("<span title=")[1:]
        ]
        for figure in figures
    ]


def test_every_overlay_has_a_legend(maps: Path) -> None:
    (maps / "names.txt").write_text("__background__\nbird\nx2\nx3\nx4\nx5\nx6\nTree\n")
    cvjobs.eval(str(maps / "maps"), str(maps / "data/masks"), labels=str(maps / "names.txt"), out=str(maps / "out"))
    page = (maps / "out/eval.html").read_text()
    # The largest first; the truth names a class that the model does not know, too.
    assert legends(page) == [["__background__", "bird", "Tree"], ["__background__", "bird"]]
    assert "33%" in page
