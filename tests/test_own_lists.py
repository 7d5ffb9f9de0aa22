"""What one command wrote as a list of another: every file of ours that names images, for every command of lists."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import Ended, here, said, sentence
from PIL import Image
from predictions import detection, output
from training import folder

from cvjobs.common.categories import Category
from cvjobs.common.paths import path_text
from cvjobs.images.masks import rle

pytestmark = pytest.mark.usefixtures("offline")

NAMES = [f"{n}.jpg" for n in range(40)]
CLASSES = [Category(1, "cat"), Category(2, "dog")]
STRANGE = [b"=%d.jpg", b"-%d.jpg", b"b\\%d.jpg", b"\xe9%d.jpg", b"@%d.jpg", b"=n\new\\%d\xff.jpg"]
TRAIN = ("--model", "small/cnn", "--recipe", "quick", "--epochs", 1, "--img-size", 8)


def cells(n: int) -> dict[str, dict[str, Any]]:
    """What the results of each task say of an image."""
    label, box, png = ("cat", "dog")[n // 2 % 2], detection(1, 2, 30, 40, 0.5), io.BytesIO()
    Image.new("L", (64, 48), 1).save(png, "PNG")
    mask = rle.encode(np.ones((8, 8), np.bool_), (2, 2), (48, 64))
    return {
        "classify": {"label": label, "score": 0.5, "top": [{"label": label, "score": 0.5}]},
        "detect": {"detections": [box]},
        "instance": {"detections": [{**box, "rle": mask}]},
        "semantic": {"class_map": png.getvalue(), "classes": [{"category_id": 1, "label": "cat", "pixels": 9}]},
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A folder of images with a file of each kind that our commands write about them; outputs are beside it."""
    beside = tmp_path_factory.mktemp("own")
    place = beside / "photos"
    place.mkdir()
    for name, image in zip(NAMES, sorted(photos.rglob("*.jpg")), strict=False):
        shutil.copy2(image, place / name)
    exports = [("csv", ".csv"), ("jsonl", ".jsonl"), ("coco", ".json"), ("yolo", "-yolo")]
    for task in cells(0):
        rows = [{"path": name, "width": 64, "height": 48, **cells(n)[task]} for n, name in enumerate(NAMES)]
        output(beside / task, task, CLASSES, rows, source=place)
        for kind, ending in exports:
            ended = here("export", beside / task, "--format", kind, "-o", place / f"{task}{ending}")
            assert ended.code == 0 or f"{kind} has no place" in ended.err, ended
    assert here("embed", place, "-o", beside / "embed", "--model", "thumbnail/4").code == 0
    assert here("export", beside / "embed", "--format", "jsonl", "-o", place / "embed.jsonl").code == 0
    output(beside / "failed", "detect", CLASSES, [{"path": n, "error": "corrupt"} for n in NAMES], source=place)
    assert here("index", beside / "embed", "-o", beside / "index").code == 0
    assert here("query", beside / "index", beside / "embed", "-o", beside / "answers").code == 0
    assert here("train", place / "classify.csv", "-o", beside / "run", *TRAIN).code == 0
    parts = [(task, f"{task}/data/part-*.parquet") for task in (*cells(0), "embed")]
    parts += [("errors", "failed/errors/*.parquet"), ("neighbours", "answers/data/neighbours.parquet")]
    for name, pattern in [*parts, ("predictions", "run/predictions.parquet"), ("history", "run/history.parquet")]:
        (file,) = beside.glob(pattern)
        shutil.copy2(file, place / f"{name}.parquet")
    return place


def files(made: Path) -> tuple[list[Path], list[Path]]:
    """The tables of images, and everything else."""
    written = sorted(set(made.iterdir()) - {made / name for name in NAMES})
    tables = [file for file in written if file.suffix in (".csv", ".parquet") and file.stem != "history"]
    assert len(tables) == 12
    others = [file for file in written if file not in tables]
    assert {file.suffix for file in others} == {".json", ".jsonl", ".parquet", ""}
    return tables, others


def command(name: str, file: Path, out: Path) -> Ended:
    """A command that reads a list of images, for a file."""
    words: dict[str, tuple[Any, ...]] = {
        "embed": ("embed", file, "-o", out, "--model", "thumbnail/4"),
        "classify": ("classify", file, "-o", out, "--model", "timm/test_resnet", "--weights", "random"),
        "detect": ("detect", file, "-o", out, "--model", "ssdlite320_mobilenet_v3_large", "--weights", "random"),
        "segment": ("segment", file, "-o", out, "--model", "lraspp_mobilenet_v3_large", "--weights", "random"),
        "query": ("query", file.parent.parent / "index", file, "-o", out),
        "autoencoder": ("train", file, "-o", out, "--task", "autoencoder", "--epochs", 1, "--img-size", 16),
        "train": ("train", file, "-o", out, *TRAIN),
    }
    return here(*words[name])


@pytest.mark.faults(minutes=3)
@pytest.mark.parametrize("name", ["embed", "classify", "detect", "segment", "query", "autoencoder"])
def test_every_table_of_images_is_a_list(made: Path, tmp_path: Path, name: str) -> None:
    tables, others = files(made)
    for file in tables[3:5] if name in ("detect", "segment") else tables:
        ended = command(name, file, tmp_path / file.name)
        if name == "autoencoder" and file.stem == "predictions":  # all of which are of the split val
            assert " has no images to train on: " in sentence(ended, 2)
            continue
        assert ended.code == 0, (file, ended)
        assert said(ended.err) == [], (file, ended)
        if name in ("embed", "classify"):
            assert f" {6 if file.stem == 'predictions' else 40} ok + 0 failed " in ended.out, (file, ended)
            assert here("verify", tmp_path / file.name, "--source", file).code == 0
    for file in others:
        what = sentence(command(name, file, tmp_path / file.name), 2)
        if file.suffix in (".json", ".jsonl"):
            way = "write it as .csv, .tsv or .parquet, as `cvjobs export --format csv` does."
            assert what == f"{file} is no list that is read here: {way}"
        elif file.suffix == ".parquet":
            assert what.startswith(f"{file} has no path column but ")
        else:
            assert what.startswith(f"There is no image in {file} (skipped: 40 .txt, 1 .yaml): give ")


@pytest.mark.slow
def test_tables_with_labels_train_and_others_are_told(made: Path, tmp_path: Path) -> None:
    for file in files(made)[0]:
        ended = command("train", file, tmp_path / file.name)
        if file.stem == "classify":
            assert ended.code == 0, (file, ended)
        elif file.stem == "predictions":
            assert " has no images to train on: " in sentence(ended, 2)
        else:
            what = sentence(ended, 2)
            assert " has one class, cat: " in what or " has no column `label` (or `labels`): " in what, (file, what)


@pytest.mark.slow
def test_tables_with_labels_are_predictions_and_the_truth_and_others_are_told(made: Path) -> None:
    tables, others = files(made)
    for file in [*tables, *others]:
        ended = here("eval", made.parent / "classify", file)
        if file.suffix in (".csv", ".parquet", ".jsonl") and file.stem in ("classify", "predictions"):
            assert ended.code == 0, (file, ended)
            assert here("eval", file, made / "classify.csv").code == 0
        elif file.suffix == ".csv":  # of detections, which have labels, too
            assert ended.code == 0, (file, ended)
        else:
            what = sentence(ended, 2)
            assert any(
                words in what
                for words in ("must name the columns path and label.", " is no truth for ", " knows no image: ")
            )


@pytest.mark.slow
def test_what_a_model_classified_is_trained_on(tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", 30)
    assert here("train", photos, "-o", tmp_path / "run", *TRAIN, "--epochs", 8).code == 0
    assert here("classify", photos, "-o", tmp_path / "labels", "--model", tmp_path / "run").code == 0
    assert here("export", tmp_path / "labels", "--format", "csv", "-o", photos / "labels.csv").code == 0
    with (photos / "labels.csv").open(newline="") as file:
        labelled = {line["path"]: line["label"] for line in csv.DictReader(file)}
    assert (len(labelled), len(set(labelled.values()))) == (90, 3)
    ended = here("train", photos / "labels.csv", "-o", tmp_path / "again", *TRAIN)
    assert ended.code == 0, ended
    trained = pq.read_table(tmp_path / "again/predictions.parquet").to_pylist()
    assert trained
    assert all(row["label"] == labelled[row["path"]] for row in trained)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", pytest.param("parquet", marks=pytest.mark.faults(minutes=0.2))])
def test_names_that_we_write_in_another_way_are_read_back(photos: Path, tmp_path: Path, kind: str) -> None:
    place, image, labels = tmp_path / "photos", next(photos.rglob("*.jpg")), ("=cat", "-dog")
    place.mkdir()
    names = [name % n for n in range(6) for name in STRANGE]
    for name in names:
        shutil.copy2(image, place / os.fsdecode(name))
    texts = list(map(path_text, names))
    rows = [
        {"path": text, "width": 64, "height": 48, **cells(0)["classify"], "label": labels[n % 2]}
        for n, text in enumerate(texts)
    ]
    known = {row["path"]: row["label"] for row in rows}
    for row in rows:
        row["top"] = [{"label": row["label"], "score": 0.5}]
    output(tmp_path / "labels", "classify", [Category(n, name) for n, name in enumerate(labels)], rows, source=place)
    file = place / f"labels.{kind}"
    if kind == "csv":
        assert here("export", tmp_path / "labels", "--format", "csv", "-o", file).code == 0
        with file.open(newline="") as opened:
            assert {line["label"] for line in csv.DictReader(opened)} == {"'=cat", "'-dog"}
    else:
        (part,) = tmp_path.glob("labels/data/part-*.parquet")
        shutil.copy2(part, file)
    for job in ("embed", "classify"):
        ended = command(job, file, tmp_path / job)
        assert ended.code == 0, ended
        assert "36 listed = 36 ok + 0 failed " in ended.out, ended
        (part,) = tmp_path.glob(f"{job}/data/part-*.parquet")
        read = pq.read_table(part).to_pylist()
        assert sorted(row["path"] for row in read) == sorted(texts)
        assert job == "classify" or all(row["label"] == known[row["path"]] for row in read)  # which is carried
        assert here("verify", tmp_path / job, "--source", file).code == 0
    ended = command("train", file, tmp_path / "run")
    assert ended.code == 0, ended
    predicted = pq.read_table(tmp_path / "run/predictions.parquet").to_pylist()
    assert predicted
    assert all(row["label"] == known[row["path"]] for row in predicted)
    for predictions in (tmp_path / "labels", file):
        images = json.loads(here("eval", predictions, file, "--json").out)["images"]
        assert images == {"truth": 36, "evaluated": 36, "failed": 0, "missing": 0, "unknown": 0}
