"""Names and labels of a truth and of predictions as tools write them, and what has no partner."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import here
from predictions import CATEGORIES as DETECTED
from predictions import detection, output

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.common.rules import FIRST
from cvjobs.evaluation import top_k
from cvjobs.evaluation.align import Images, pair_images
from cvjobs.evaluation.ground_truth import open as ground_truth_open
from cvjobs.evaluation.ground_truth.types import LabelTruth
from cvjobs.evaluation.predictions import EvaluatedOutput, open_predictions
from cvjobs.evaluation.result import Evaluation
from cvjobs.networks import class_names

LABELS = ["bird", "cat", "dog"]
CATEGORIES = [Category(at, name) for at, name in enumerate(LABELS)]


def labelled(path: str, *labels: str) -> dict[str, Any]:
    top = [{"label": label, "score": 0.5**at} for at, label in enumerate(labels)]
    return {"path": path, "width": 8, "height": 8, "label": labels[0], "score": 1.0, "top": top}


def classified(place: Path, rows: dict[str, str], names: list[str] | None = None) -> Path:
    """Return an output that gives each path its label."""
    known = names or sorted(set(rows.values()))
    categories = [Category(at, name) for at, name in enumerate(known)]
    return output(place, "classify", categories, [labelled(path, label) for path, label in rows.items()])


def judged(predictions: Path, truth: Path, out: Path) -> Evaluation:
    found: Evaluation = cvjobs.eval(str(predictions), str(truth), out=str(out))
    return found


def paired(truth: list[str], given: list[str], endings: bool = True) -> list[int]:
    """Return where each name of the predictions is in the truth."""
    places: list[int] = pair_images(truth, endings, given, []).place.tolist()
    return places


@pytest.mark.parametrize(
    ("truth", "given"),
    [
        ("images\\a.jpg", "images/a.jpg"),
        ("images\\a.jpg", "images\\x5ca.jpg"),  # a file of Linux whose name has a backslash
        ("C:\\Users\\me\\images\\a.jpg", "a.jpg"),
        ("./images//a.jpg", "images/a.jpg"),
        ("file:///data/images/a.jpg", "images/a.jpg"),
        (unicodedata.normalize("NFD", "café/ü.jpg"), unicodedata.normalize("NFC", "café/ü.jpg")),
        ("a", "images/a.jpg"),
        ("a.jpg", "images/a"),
        ("images/a.JPG", "images/a.jpg"),
        ("a.png", "images/a.jpg"),
        ("2026.01.01 a", "2026.01.01 a.jpg"),
        (" images/a.jpg ", "images/a.jpg"),
        ("a\\x0ab.jpg", "a\nb.jpg"),  # as an export shows it
    ],
)
def test_names_of_one_image_as_tools_write_them(truth: str, given: str) -> None:
    other = "other/b.jpg"
    assert paired([other, truth], [given, other]) == [1, 0]


def test_names_fit_by_as_many_last_parts_as_are_unambiguous() -> None:
    truth = ["/data/train/1.jpg", "/data/val/1.jpg", "/data/val/2.jpg"]
    assert paired(truth, ["train/1.jpg", "val/1.jpg", "2.jpg"]) == [0, 1, 2]
    assert paired(truth, ["1.jpg", "2.jpg"]) == [-1, 2]
    assert paired(["a.jpg", "a.png"], ["a.jpg", "a.png", "x/a"]) == [0, 1, -1]
    assert paired(["a", "c"], ["a.jpg", "a.png", "c.jpg"], endings=False) == [0, -1, 1]
    assert paired(["b.x", "a"], ["a.tif", "b.x.png"], endings=False) == [1, 0]


def test_two_files_that_differ_in_form_alone_stay_two() -> None:
    composed, apart = "ü.jpg", unicodedata.normalize("NFD", "ü.jpg")
    assert paired([composed, apart], [apart, composed]) == [1, 0]
    assert paired([composed, apart], ["x/" + composed, "y.jpg", composed]) == [-1, -1, 0]


def test_what_has_no_partner_is_counted_by_reason_with_the_first_names() -> None:
    truth = ["a.jpg", "b.jpg", "x/c.jpg", "y/c.jpg", "./a.jpg"]
    found: Images = pair_images(truth, True, ["a.jpg", "c.jpg", "new.jpg", "new2.jpg"], ["b.jpg"])
    assert found.counts == {"truth": 5, "evaluated": 1, "failed": 1, "missing": 3, "unknown": 3}
    assert found.unpaired == {
        "predictions": {
            "unknown": {"count": 2, "first": ["new.jpg", "new2.jpg"]},
            "ambiguous": {"count": 1, "first": ["c.jpg"]},
        },
        "truth": {
            "failed": {"count": 1, "first": ["b.jpg"]},
            "ambiguous": {"count": 2, "first": ["x/c.jpg", "y/c.jpg"]},
            "repeated": {"count": 1, "first": ["./a.jpg"]},
        },
    }
    assert "images of the truth whose prediction failed: 1 (b.jpg)" in found.notes


def test_a_table_with_backslashes_is_evaluated(tmp_path: Path) -> None:
    predictions = classified(tmp_path / "labels", {"images/a.jpg": "cat", "images/b.jpg": "dog"})
    (tmp_path / "truth.csv").write_text("path,label\nimages\\a.jpg,cat\nimages\\b.jpg,Dog \nimages\\c.jpg,dog\n")
    ended = here("eval", predictions, tmp_path / "truth.csv", "-o", tmp_path / "out")
    assert ended.code == 0, ended
    assert "images of the truth without a prediction: 1 (images\\c.jpg)" in ended.out
    record = json.loads((tmp_path / "out/eval.json").read_text())
    assert record["metrics"]["top-1"] == pytest.approx(2 / 3)
    assert record["unpaired"] == {"truth": {"missing": {"count": 1, "first": ["images\\c.jpg"]}}}
    assert "Images of the truth without a prediction: 1" in (tmp_path / "out/eval.html").read_text()


def test_coco_with_backslashes_is_evaluated(tmp_path: Path) -> None:
    rows = [{"path": "images/a.jpg", "width": 20, "height": 20, "detections": [detection(2, 2, 12, 12, 0.9)]}]
    output(tmp_path / "boxes", "detect", [Category(1, "cat")], rows)
    truth = {
        "images": [{"id": 1, "file_name": "images\\a.jpg"}],
        "categories": [{"id": 9, "name": " Cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 9, "bbox": [2, 2, 10, 10], "area": 100}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    assert judged(tmp_path / "boxes", tmp_path / "truth.json", tmp_path / "out").metrics["AP"] == pytest.approx(1)


def test_spellings_of_one_label_are_one_class(tmp_path: Path) -> None:
    rows = {"1.jpg": "tench", "2.jpg": "tench", "3.jpg": "hot_dog", "4.jpg": "café"}
    predictions = classified(tmp_path / "labels", rows)
    cells = ["tench", "Tench", "Hot  Dog", unicodedata.normalize("NFD", "Café ")]
    lines = [f"{name},{cell}" for name, cell in zip(rows, cells, strict=True)]
    (tmp_path / "truth.csv").write_text("\n".join(["path,label", *lines]))
    found = judged(predictions, tmp_path / "truth.csv", tmp_path / "out")
    assert found.metrics["top-1"] == 1
    assert [c["name"] for c in found.classes] == ["Café", "Hot  Dog", "Tench"]
    assert "labels of the truth that are one class in another spelling: tench: Tench" in found.notes


def test_outputs_that_were_begun_before_keep_the_labels_apart(tmp_path: Path) -> None:
    classified(tmp_path / "labels", {"1.jpg": "cat", "2.jpg": "cat"})
    (tmp_path / "truth.csv").write_text("path,label\n1.jpg,cat\n2.jpg,Cat\n")
    newest = open_predictions(str(tmp_path / "labels"), {})
    truth = ground_truth_open.read(str(tmp_path / "truth.csv"), "classify")
    assert isinstance(truth, LabelTruth)
    assert isinstance(newest, EvaluatedOutput)
    assert top_k.meet(truth, newest).names == ["Cat"]
    assert top_k.meet(truth, replace(newest, rules=FIRST)).names == ["Cat", "cat"]


def test_spellings_that_the_model_tells_apart_stay_classes(tmp_path: Path) -> None:
    rows = {"1.jpg": "Cardigan", "2.jpg": "cardigan", "3.jpg": "a", "4.jpg": "A"}
    predictions = classified(tmp_path / "labels", rows)
    (tmp_path / "truth.csv").write_text("path,label\n" + "\n".join(f"{p},{c}" for p, c in rows.items()))
    found = judged(predictions, tmp_path / "truth.csv", tmp_path / "out")
    assert found.metrics["top-1"] == 1
    assert len(found.classes) == 4


@pytest.mark.parametrize(
    ("column", "known"),
    [
        (pa.array([1.0, 2.0]), ["1", "2"]),
        (pa.array(["1.0", "2.0"]), ["1", "2"]),
        (pa.array([b"cat", b"dog"]), ["cat", "dog"]),
        (pa.array(["cat", "dog"]).dictionary_encode(), ["cat", "dog"]),
        (pa.array(["cat", "dog"], pa.large_string()), ["cat", "dog"]),
        (pa.array([["cat"], ["dog"]]), ["cat", "dog"]),
        (pa.array([True, False]), ["true", "false"]),
    ],
)
def test_labels_of_any_type_in_parquet(tmp_path: Path, column: pa.Array, known: list[str]) -> None:
    predictions = classified(tmp_path / "labels", dict(zip(("1.jpg", "2.jpg"), known, strict=True)))
    pq.write_table(pa.table({"path": ["1.jpg", "2.jpg"], "label": column}), tmp_path / "truth.parquet")
    assert judged(predictions, tmp_path / "truth.parquet", tmp_path / "out").metrics["top-1"] == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "path;label\n1.jpg;cat\n2.jpg;dog\n".encode("utf-16")),
        ("t.csv", b"\xef\xbb\xbffile,split,label\r\n'=1.jpg,val,cat\r\n2.jpg,val,dog\r\n\r\n"),
        ("t.tsv", b"image\tlabel\r1.jpg\tCAT\r2.jpg\tdog\r"),
        ("t.ndjson", b'{"path": "1.jpg", "label": "cat", "score": 1}\n\n{"label": ["dog"], "path": "2.jpg"}'),
        ("t.jsonl", b'{"uri": "./1.jpg", "labels": "cat|"}\n{"uri": "2.jpg", "labels": ["dog", null]}\n'),
    ],
)
def test_tables_as_tools_write_them(tmp_path: Path, name: str, content: bytes) -> None:
    predictions = classified(tmp_path / "labels", {"=1.jpg" if b"=" in content else "1.jpg": "cat", "2.jpg": "dog"})
    (tmp_path / name).write_bytes(content)
    found = judged(predictions, tmp_path / name, tmp_path / "out")
    assert (found.metrics["top-1"], found.images["evaluated"]) == (1, 2)


def test_text_that_no_encoding_has_is_shown(tmp_path: Path) -> None:
    line = '{"path": "\\ud800.jpg", "label": "\\ud800"}\n{"path": "b.jpg", "label": "b"}\n'
    (tmp_path / "labels.jsonl").write_text(line)
    found = judged(tmp_path / "labels.jsonl", tmp_path / "labels.jsonl", tmp_path / "out")
    assert (found.metrics["top-1"], found.images["evaluated"]) == (1, 2)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.jsonl", b'{"path": "1.jpg", "label": "cat"}\n{"path": ', "line 2 is no JSON"),
        ("t.jsonl", b"[1]\n", "line 1 is no JSON object"),
        ("t.jsonl", b'{"path": "1.jpg", "label": "a"}\n{"path": ".//1.jpg", "label": "b"}\n', "a second label"),
        ("t.parquet", b"PAR1 no more", "is no Parquet file that can be read"),
        ("t.csv", b"path,label\n1.jpg,caf\xe9\n", "t.csv, line 2 is no UTF-8 text"),
        ("t.csv", b"path,labels\n1.jpg,a|b\n", "line 2 has several labels"),
    ],
)
def test_tables_that_make_no_sense_are_one_sentence(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WrongUse) as error:
        ground_truth_open.read(str(tmp_path / name), "classify")
    assert said in str(error.value)


@pytest.mark.parametrize("column", [["cat", None], ["cat", " "], [1.0, float("nan")]])
def test_rows_without_a_label_are_left_out_and_said(tmp_path: Path, column: list[Any]) -> None:
    pq.write_table(pa.table({"path": ["1.jpg", "2.jpg"], "label": pa.array(column)}), tmp_path / "truth.parquet")
    truth = ground_truth_open.read(str(tmp_path / "truth.parquet"), "classify")
    assert isinstance(truth, LabelTruth)
    assert list(truth.names) == ["1.jpg"]
    assert truth.left_out == {"without a label": {"count": 1, "first": ["2.jpg"]}}


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([None, " "]), "truth.parquet, line 1 has no label, nor has another one"),
        (pa.array([["cat"], ["cat", "dog"]]), "truth.parquet, line 2 has several labels"),
        (pa.array([{"a": 1}, {"a": 2}]), "truth.parquet, line 1 has several labels"),
    ],
)
def test_cells_that_make_no_label_are_one_sentence(tmp_path: Path, column: pa.Array, said: str) -> None:
    pq.write_table(pa.table({"path": ["1.jpg", "2.jpg"], "label": column}), tmp_path / "truth.parquet")
    with pytest.raises(WrongUse) as error:
        ground_truth_open.read(str(tmp_path / "truth.parquet"), "classify")
    assert said in str(error.value)


@pytest.mark.slow
def test_folders_with_the_ids_of_wordnet(tmp_path: Path) -> None:
    rows = {"a/1.jpg": "tench", "a/2.jpg": "goldfish", "b/1.jpg": "Cardigan"}
    names = ["tench", "goldfish", "Cardigan", "cardigan"]
    predictions = classified(tmp_path / "labels", rows, names)
    for path in ("n01440764/a/1.jpg", "n01443537/a/2.jpg", "n02113186/b/1.jpg"):
        (tmp_path / "truth" / path).parent.mkdir(parents=True)
        (tmp_path / "truth" / path).write_bytes(b"never opened")
    found = judged(predictions, tmp_path / "truth", tmp_path / "out")
    assert found.metrics["top-1"] == 1
    ids = classified(tmp_path / "ids", {"1.jpg": "n01440764", "2.jpg": "n01443537"})
    (tmp_path / "truth.csv").write_text('path,label\n1.jpg,"tench, Tinca tinca"\n2.jpg,Goldfish\n')
    assert judged(ids, tmp_path / "truth.csv", tmp_path / "out").metrics["top-1"] == 1


@pytest.mark.slow
def test_wordnet_names_every_class_of_torchvision_and_timm() -> None:
    from timm.data.imagenet_info import ImageNetInfo
    from torchvision.models import MobileNet_V2_Weights

    names = MobileNet_V2_Weights.DEFAULT.meta["categories"]
    ids = ImageNetInfo().label_names()  # type: ignore[no-untyped-call]
    found = class_names.wordnet(names)
    assert [found[name] for name in names] == ids
    assert class_names.wordnet(["crane (n02012849)", "Tinca tinca", "nonsense"]) == {
        "crane (n02012849)": "n02012849",
        "Tinca tinca": "n01440764",
    }


def test_folders_of_splits_hold_the_classes(tmp_path: Path) -> None:
    names = ("val/cat/1.jpg", "test/dog/1.jpg", "Train/cat/2.jpg")
    for name in names:
        (tmp_path / "truth" / name).parent.mkdir(parents=True)
        (tmp_path / "truth" / name).write_bytes(b"never opened")
    predictions = classified(tmp_path / "labels", {name: name.split("/")[1] for name in names})
    assert judged(predictions, tmp_path / "truth", tmp_path / "out").metrics["top-1"] == 1
    (tmp_path / "truth/val/cat/1.jpg").rename(tmp_path / "truth/val/1.jpg")
    found = ground_truth_open.read(str(tmp_path / "truth"), "classify")
    assert isinstance(found, LabelTruth)
    assert set(found.labels) == {"val", "test", "Train"}


def test_what_the_listing_of_a_truth_left_out_is_said(tmp_path: Path) -> None:
    predictions = classified(tmp_path / "labels", {"cat/1.jpg": "cat", "dog/1.jpg": "dog"})
    for path in ("cat/1.jpg", "dog/1.jpg", "dog/notes.txt"):
        (tmp_path / "truth" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "truth" / path).write_bytes(b"never opened")
    (tmp_path / "truth/dog/gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "truth/cat").rename(tmp_path / "cat")
    (tmp_path / "truth/cat").symlink_to(tmp_path / "cat")
    found = judged(predictions, tmp_path / "truth", tmp_path / "out")
    assert found.metrics["top-1"] == 1
    assert found.notes[0] == "links to folders, which were followed: 1 (cat)"
    assert "left out of the truth: 1 .txt" in found.notes[-1]
    assert "1 list_vanished (dog/gone.jpg)" in found.notes[-1]
    assert json.loads((tmp_path / "out/eval.json").read_text())["left_out"][".txt"]["count"] == 1


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl", "labels.parquet"])
def test_exports_of_classify_are_predictions_and_truths(tmp_path: Path, name: str) -> None:
    rows = {"cat/1.jpg": "cat", "-dog/1.jpg": "dog", "=b\n.jpg": "bird"}
    predictions = output(
        tmp_path / "labels", "classify", CATEGORIES, [labelled(p, own, "bird", "cat") for p, own in rows.items()]
    )
    if name.endswith(".parquet"):
        cvjobs.open(str(predictions)).to_pandas().to_parquet(tmp_path / name)
    else:
        cvjobs.export(str(predictions), format=name.rpartition(".")[2], out=str(tmp_path / name))
    found = judged(predictions, tmp_path / name, tmp_path / "out")
    assert (found.images["evaluated"], found.metrics["top-1"]) == (3, 1)
    found = judged(tmp_path / name, predictions, tmp_path / "out")
    assert (found.images["evaluated"], found.metrics["top-1"]) == (3, 1)
    assert found.sides.truth_format == "labelled_output"
    assert judged(tmp_path / name, tmp_path / name, tmp_path / "out").metrics["top-1"] == 1


def test_the_predictions_of_a_training_run_are_evaluated(tmp_path: Path) -> None:
    rows = {"path": ["cat/1.png", "dog/1.png"], "split": "val", "label": ["cat", "dog"], "predicted": ["cat", "cat"]}
    pd.DataFrame({**rows, "score": 0.9}).to_parquet(tmp_path / "predictions.parquet")
    found = judged(tmp_path / "predictions.parquet", tmp_path / "predictions.parquet", tmp_path / "out")
    assert found.metrics["top-1"] == pytest.approx(0.5)


@pytest.mark.parametrize("format_", ["csv", "jsonl", "coco", "yolo"])
def test_exports_of_detect_are_predictions_and_truths(tmp_path: Path, format_: str) -> None:
    rows: list[dict[str, Any]] = [
        {
            "path": "a.jpg",
            "width": 20,
            "height": 10,
            "detections": [detection(2, 2, 12, 8, 0.9), detection(0, 0, 4, 4, 0.8, 2)],
        },
        {"path": "b.jpg", "width": 20, "height": 20, "detections": []},
    ]
    boxes = output(tmp_path / "boxes", "detect", DETECTED, rows)
    file = tmp_path / {"coco": "boxes.json", "yolo": "yolo"}.get(format_, f"boxes.{format_}")
    cvjobs.export(str(boxes), format=format_, out=str(file))
    cvjobs.export(str(boxes), format="coco", out=str(tmp_path / "truth.json"))
    if format_ != "yolo":  # which has no scores
        found = judged(file, tmp_path / "truth.json", tmp_path / "out")
        assert found.metrics["AP"] == pytest.approx(1)
        assert found.images["evaluated"] == 2
    if format_ in ("coco", "yolo"):
        found = judged(boxes, file, tmp_path / "out")
        assert found.metrics["AP"] == pytest.approx(1)
        assert found.images["evaluated"] == 2
    cvjobs.export(str(boxes), format="yolo", out=str(tmp_path / "labels"))
    if format_ != "yolo":
        assert judged(file, tmp_path / "labels", tmp_path / "out").metrics["AP"] == pytest.approx(1)
