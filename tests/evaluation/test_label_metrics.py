"""The numbers of labels beside a count by hand, and what is undefined: no -1 where there is nothing to measure."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import here
from predictions import output

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.evaluation.classify import MATRIX

Row = tuple[str, str, str | None, float]  # path, truth, what it is taken for, score


def evaluated(folder: Path, rows: list[Row], known: list[str]) -> Any:
    given = [
        {"path": path, "width": 8, "height": 8, "label": said, "score": score, "top": [{"label": said, "score": score}]}
        if said is not None
        else {"path": path, "error": "corrupt"}
        for path, _, said, score in rows
    ]
    output(folder / "given", "classify", [Category(at, name) for at, name in enumerate(known)], given)
    (folder / "truth.csv").write_text("path,label\n" + "".join(f"{row[0]},{row[1]}\n" for row in rows))
    return cvjobs.eval(str(folder / "given"), str(folder / "truth.csv"), out=str(folder / "eval"))


def made(seed: int, classes: int, images: int) -> tuple[list[Row], list[str]]:
    """Labels that are right about half the time; the last third of the classes is never there, the first never said."""
    random = np.random.default_rng(seed)
    known = [f"class {at:03}" for at in range(classes)]
    there = known[: 2 * classes // 3]
    rows: list[Row] = []
    for at in range(images):
        truth = str(random.choice(there))
        said = truth if random.random() < 0.5 else str(random.choice(known))
        score = float(np.float32(random.random()))
        failed = random.random() < 0.02
        rows.append((f"{at:05}.jpg", truth, None if failed else known[1] if said == known[0] else said, score))
    return rows, known


def by_hand(rows: list[Row]) -> dict[str, Any]:
    """Macro F1, balanced accuracy and calibration error as scikit-learn and Naeini et al. define them, row by row."""
    names = sorted({row[1] for row in rows} | {row[2] for row in rows if row[2] is not None})
    f1, recalls, precision = [], [], {}
    for name in names:
        hits = sum(truth == said == name for _, truth, said, _ in rows)
        there, said = sum(row[1] == name for row in rows), sum(row[2] == name for row in rows)
        precision[name] = hits / said if said else None
        f1.append(2 * hits / (there + said))
        if there:
            recalls.append(hits / there)
    error, kept = 0.0, [row for row in rows if row[2] is not None]
    for low in range(10):
        own = [row for row in kept if max(math.ceil(row[3] * 10) - 1, 0) == low]
        if own:
            right = sum(truth == said for _, truth, said, _ in own) / len(own)
            error += len(own) / len(kept) * abs(right - sum(row[3] for row in own) / len(own))
    return {"f1": sum(f1) / len(f1), "recall": sum(recalls) / len(recalls), "error": error, "precision": precision}


@pytest.mark.parametrize(("seed", "classes", "images"), [(0, 9, 200), (1, 60, 1500)])
def test_the_numbers_are_those_of_a_count_by_hand(tmp_path: Path, seed: int, classes: int, images: int) -> None:
    rows, known = made(seed, classes, images)
    found = evaluated(tmp_path, rows, known)
    expected = by_hand(rows)
    assert found.metrics["macro F1"] == pytest.approx(expected["f1"], abs=1e-12)
    assert found.metrics["balanced accuracy"] == pytest.approx(expected["recall"], abs=1e-12)
    assert found.metrics["mean class accuracy"] == found.metrics["balanced accuracy"]
    assert found.metrics["expected calibration error"] == pytest.approx(expected["error"], abs=1e-9)
    precision = {c["name"]: c["precision"] for c in found.classes}
    assert precision.keys() == expected["precision"].keys()
    for name, value in expected["precision"].items():
        assert precision[name] == (None if value is None else pytest.approx(value, abs=1e-12))
    assert json.loads((tmp_path / "eval/eval.json").read_text())["metrics"] == pytest.approx(found.metrics, nan_ok=True)


def test_a_class_that_is_never_predicted_has_no_precision(tmp_path: Path) -> None:
    evaluated(tmp_path, [("1.jpg", "cat", "dog", 0.9), ("2.jpg", "dog", "dog", 0.8)], ["cat", "dog"])
    record = json.loads((tmp_path / "eval/eval.json").read_text())
    classes = {c["name"]: c for c in record["classes"]}
    assert classes["cat"]["precision"] is None
    assert classes["cat"]["accuracy"] == 0
    assert -1 not in [*record["metrics"].values(), *(value for c in record["classes"] for value in c.values())]


def test_a_class_that_is_only_predicted_has_its_row(tmp_path: Path) -> None:
    rows: list[Row] = [("1.jpg", "cat", "cow", 0.9), ("2.jpg", "cat", "cat", 0.8), ("3.jpg", "dog", "cow", 0.7)]
    found = evaluated(tmp_path, rows, ["bird", "cat", "cow", "dog"])
    cow = next(c for c in found.classes if c["name"] == "cow")
    assert cow == {"name": "cow", "images": 0, "predicted": 2, "accuracy": None, "precision": 0.0}
    assert [c["name"] for c in found.classes] == ["cat", "dog", "cow"]
    assert "labels that the truth does not have: 2 images are taken for cow" in found.notes
    record = json.loads((tmp_path / "eval/eval.json").read_text())
    # The matrix of the truth's labels stays what it was; the whole one is beside it.
    assert record["confusion"] == {
        "rows": ["cat", "dog"],
        "columns": ["cat", "dog", "another, or nothing"],
        "counts": [[1, 0, 1], [0, 0, 1]],
    }
    assert record["confusion_file"] == "confusion.parquet"
    whole = pq.read_table(tmp_path / "eval/confusion.parquet").to_pylist()
    assert whole == [
        {"truth": "cat", "taken": "cat", "count": 1},
        {"truth": "cat", "taken": "cow", "count": 1},
        {"truth": "dog", "taken": "cow", "count": 1},
    ]
    assert record["confusions"][0]["taken"] == "cow"
    page = (tmp_path / "eval/eval.html").read_text()
    assert "cow" in page
    ended = here("eval", tmp_path / "given", tmp_path / "truth.csv", "-o", tmp_path / "eval")
    assert ["cow", "0", "2", "–", "0.0000"] in [line.split() for line in ended.out.splitlines()]


def test_a_large_matrix_is_whole_in_a_file_that_goes_with_it(tmp_path: Path) -> None:
    known = [f"c{at}" for at in range(MATRIX + 1)]
    rows: list[Row] = [(f"{at}.jpg", name, known[at // 2], 0.5) for at, name in enumerate(known)]
    rows.append(("failed.jpg", "c0", None, 0.0))
    evaluated(tmp_path, rows, known)
    record = json.loads((tmp_path / "eval/eval.json").read_text())
    assert "confusion" not in record
    pairs = pq.read_table(tmp_path / "eval" / record["confusion_file"])
    assert pairs["count"].to_pylist() == [1] * len(rows)
    met = {(pair["truth"], pair["taken"]) for pair in pairs.to_pylist()}
    assert met == {(truth, said) for _, truth, said, _ in rows}
    # Evaluated again with few classes into the same folder: the file of before says nothing about it.
    (tmp_path / "few.csv").write_text("path,label\n0.jpg,c0\n")
    cvjobs.eval(str(tmp_path / "given"), str(tmp_path / "few.csv"), out=str(tmp_path / "eval"))
    assert not (tmp_path / "eval/confusion.parquet").exists()


@pytest.mark.parametrize("cells", [["", ""], ["3.5", "12"], ["-0.5", "0.2"], ["nan", ""]])
def test_scores_that_are_no_probabilities_have_no_calibration_error(tmp_path: Path, cells: list[str]) -> None:
    (tmp_path / "said.csv").write_text(f"path,label,score\n1.jpg,cat,{cells[0]}\n2.jpg,dog,{cells[1]}\n")
    (tmp_path / "truth.csv").write_text("path,label\n1.jpg,cat\n2.jpg,dog\n")
    found = cvjobs.eval(str(tmp_path / "said.csv"), str(tmp_path / "truth.csv"), out=str(tmp_path / "eval"))
    assert found.metrics["expected calibration error"] is None
    assert found.metrics["macro F1"] == 1.0
    assert any(note.startswith("no calibration error: no score from 0 to 1 in ") for note in found.notes), found.notes


@pytest.mark.parametrize("cell", ["", "90%", "n/a", "nan"])
def test_one_score_that_is_no_number_is_no_score_of_0(tmp_path: Path, cell: str) -> None:
    (tmp_path / "said.csv").write_text(f"path,label,score\n1.jpg,cat,0.9\n2.jpg,dog,{cell}\n")
    (tmp_path / "truth.csv").write_text("path,label\n1.jpg,cat\n2.jpg,dog\n3.jpg,cow\n")
    found = cvjobs.eval(str(tmp_path / "said.csv"), str(tmp_path / "truth.csv"), out=str(tmp_path / "eval"))
    assert found.metrics["expected calibration error"] is None
    assert "no calibration error: no score from 0 to 1 in 1 of 2 images (2.jpg)" in found.notes


def test_a_table_says_nothing_about_what_its_model_knows(tmp_path: Path) -> None:
    (tmp_path / "said.csv").write_text("path,label,score\n1.jpg,cat,0.9\n2.jpg,cat,0.8\n")
    (tmp_path / "truth.csv").write_text("path,label\n1.jpg,cat\n2.jpg,dog\n")
    found = cvjobs.eval(str(tmp_path / "said.csv"), str(tmp_path / "truth.csv"), out=str(tmp_path / "eval"))
    assert "labels that no prediction has: dog" in found.notes
