"""What people type who come from other tools: each gets one sentence that says what to type here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from commands import here, sentence

import cvjobs
from cvjobs.common.errors import WrongUse
from cvjobs.common.paths import plain
from cvjobs.config import commands, other_tools
from cvjobs.config.fields import fields

SHOWN = {field.spelt for name in commands.files() for field in fields(commands.load(name).Config).values()}


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("embed photos -o out --batch 4", "embed has no option --batch: here it is --batch-size."),
        ("classify photos --output out", "classify has no option --output: here it is -o/--out."),
        ("detect photos -o out --confidence 0.4", "detect has no option --confidence: here it is --conf."),
        ("detect photos -o out --min-score 0.4", "detect has no option --min-score: here it is --conf."),
        ("query index photos --conf 0.4", "query has no option --conf: here it is --min-score."),
        ("detect photos -o out --top-k 5", "detect has no option --top-k: here it is --max-det."),
        ("embed photos -o out --epochs 3", "embed has no option --epochs; --epochs is an option of train: see"),
        ("embed photos -o out --no-cuda", "here it is --device cpu."),
        ("embed photos -o out --gpu-id 0", "`cvjobs doctor` shows it"),
        ("train photos -o out --learning-rate 1e-3", "train has no option --learning-rate: here it is --lr."),
        ("train photos -o out --aug", "train has no option --aug: here it is --aa."),
        ("embed photos -o out --fp16", "here it is --precision fp16."),
        ("embed photos -o out --img-size 64", "the size that the model was made for"),
        ("embed photos -o out --num_workers 4", "here it is --workers."),
        ("query index photos --topk 5", "query has no option --topk: here it is -k."),
        ("classify photos -o out --top-k 5", "classify has no option --top-k: here it is --top."),
        ("embed --input photos -o out", "as in 'cvjobs embed photos'."),
        ("embed photos -o out --resume", "the same command continues"),
        ("embed photos -o out --force", "here it is --overwrite."),
        ("detect photos -o out --save-txt", "--format may be meant, which is an option of export"),
        ("embed photos -o out --batch-sise 4", "embed has no option --batch-sise (nearest: --batch-size)"),
        ("embed photos -o out --zebra", "embed has no option --zebra: see 'cvjobs embed --help'."),
        ("embed photos vectors", "vectors is one value too many: if it is the output, type -o vectors."),
        ("export labels labels.csv --format csv", "if it is the output, type -o labels.csv."),
        ("predict photos -o out", "There is no command 'predict': 'cvjobs classify' or 'cvjobs detect'"),
        ("val out truth", "There is no command 'val': 'cvjobs eval' may be meant"),
        ("dedup index", "'cvjobs query INDEX --duplicates' may be meant"),
        ("Embed photos", "There is no command 'Embed': 'cvjobs embed' may be meant"),
        ("cluster", "ACTION is missing: it is one of up, down, status, as in 'cvjobs cluster up'."),
    ],
)
def test_words_of_other_tools(typed: str, expected: str) -> None:
    assert expected in sentence(here(*typed.split()), 2)


def test_what_other_tools_words_are_said_to_mean_is_there() -> None:
    names = {spelling.lstrip("-") for spelt in SHOWN for spelling in spelt.split("/")} | {"config", "id", "detach"}
    meant = {wanted.partition(" ")[0] for every in other_tools.OPTIONS.values() for wanted in every}
    assert meant - names == set()
    called = {name.partition(" ")[0] for every in other_tools.COMMANDS.values() for name in every}
    assert called - {*commands.files(), "--version", "COMMAND"} == set()


def test_files_that_a_shell_makes_of_a_pattern(tmp_path: Path) -> None:
    photos = [tmp_path / "photos" / name for name in ("a.png", "b.png", "c.png")]
    photos[0].parent.mkdir()
    for photo in photos:
        photo.touch()
    said = sentence(here("classify", *photos, "-o", tmp_path / "out"), 2)
    assert "takes one SOURCE, and 3 were given" in said
    assert f"'{tmp_path}/photos/*.png'" in said
    assert f"name the folder ({tmp_path}/photos)" in said
    (tmp_path / "my photos").mkdir()
    said = sentence(here("embed", tmp_path / "my", "photos", "-o", tmp_path / "out"), 2)
    assert said == f"SOURCE is a name with spaces: quote it, as in '{tmp_path}/my photos'."


def test_choices_in_upper_case(tmp_path: Path) -> None:
    for words in (["embed", tmp_path, "-o", tmp_path / "out", "--truncated", "USE"], ["doctor", "--json"]):
        assert "not one of" not in here(*words).err
    assert "There is no format" not in here("export", tmp_path, "--format", "COCO", "-o", tmp_path / "x.json").err
    with pytest.raises(WrongUse, match="must be one of fail, use"):
        cvjobs.embed(str(tmp_path), str(tmp_path / "out"), truncated=cast("Any", "uze"))


def test_both_names_of_the_image_size(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    for words in (["detect", "--img-size", "64"], ["detect", "--img_size=64"], ["train", "--imgsz", "64"]):
        assert f"There is no {nothing}" in sentence(here(words[0], nothing, "-o", tmp_path / "out", *words[1:]), 2)
    shown = here("detect", "--help").out
    assert "--imgsz" in shown
    assert "--img-size" not in shown
    by_other_name: dict[str, Any] = {"img_size": 64}
    with pytest.raises(WrongUse, match=r"There is no .*nothing"):
        cvjobs.detect(str(nothing), str(tmp_path / "out"), **by_other_name)
    with pytest.raises(WrongUse, match="given twice"):
        cvjobs.detect(str(nothing), str(tmp_path / "out"), imgsz=64, **by_other_name)
    (tmp_path / "c.yaml").write_text("detect: {img-size: 1}")
    said = sentence(here("detect", nothing, "-o", tmp_path / "out", "--config", tmp_path / "c.yaml"), 2)
    assert "must be a whole number at least 32" in said


def test_jobs_alone_lists() -> None:
    said = sentence(here("jobs", "--address", "http://127.0.0.1:1"), 1)
    assert said.startswith("No Ray cluster answers at http://127.0.0.1:1")


def test_models_that_are_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "cells.pt").touch()
    (tmp_path / "photos" / "a.png").touch()

    def said(model: str) -> str:
        return sentence(here("embed", "photos", "-o", "out", "--model", model), 2)

    assert "There is no model 'run_mob'" in said("run_mob")
    assert "and no folder of a training is called so." in said("run_mob")
    assert said("./a/../run_mob").startswith(f"There is no run {tmp_path}/run_mob: ")
    assert "no model family 'runs', and no folder runs/mob of a training" in said("runs/mob")
    assert said("photos").startswith("The folder photos holds no training run")
    assert "cells.pt is a file: name it with --weights" in said("cells.pt")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "yolo.onnx").touch()
    (tmp_path / "own" / "config.json").write_text('{"model_type": "vit"}')
    for named in ("own", "own/"):
        assert said(named).startswith("The folder own holds a model of transformers: name it as --model hf/own.")
    (tmp_path / "own" / "model.safetensors").touch()
    assert "--model hf/own." in said("own")
    assert said("own/yolo.onnx").startswith("own/yolo.onnx is an ONNX file: name it as --model onnx/own/yolo.onnx.")
    ended = here("embed", "photos", "-o", "out", "--model", "resnet18", "--weights", "own/yolo.onnx")
    assert "own/yolo.onnx is an ONNX file: name it as --model onnx/own/yolo.onnx" in sentence(ended, 2)


def test_paths_in_sentences_are_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    ended = here("verify", "./a//b/../c")
    assert f"There is nothing in {tmp_path}/a/c:" in sentence(ended, 2)
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    assert plain("./a//b/../c") == "a/c"
    assert plain("link/../c") == "link/../c"  # is far/c
    assert [plain(name) for name in ("a/", "./~x", "s3://b//c", "//x", ".", "../x")] == [
        "a/",
        "./~x",
        "s3://b//c",
        "/x",
        ".",
        "../x",
    ]
