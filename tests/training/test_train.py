"""`cvjobs train` from a folder or a list to a run: what it counts, refuses, continues and leaves behind."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from event_files import curves, expected
from safetensors.torch import save_file
from training import CLASSES, SIDE, folder

import cvjobs
from cvjobs import cli
from cvjobs.common import devices
from cvjobs.common.errors import WrongUse
from cvjobs.networks import registry
from cvjobs.sources.listing import list_source
from cvjobs.training.data import labels
from cvjobs.training.training_summary import TrainingSummary

pytestmark = pytest.mark.slow

OPTIONS: dict[str, Any] = {
    "model": "small/cnn",
    "recipe": "quick",
    "epochs": 3,
    "img_size": str(SIDE),
    "batch_size": 16,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 24 images, one of them damaged, and a copy of a training image in the val split."""
    root = tmp_path_factory.mktemp("images")
    folder(root / "train", 20)
    folder(root / "val", 4, seed=1)
    (root / "train" / "red" / "bad <b>.png").write_bytes(b"no image")
    shutil.copy(root / "train" / "blue" / "000.png", root / "val" / "blue" / "copy.png")
    (root / "train" / "loose.png").write_bytes(b"of no class")
    (root / "train" / "red" / "gone.png").symlink_to("nowhere.png")
    return root


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingSummary:
    """A finished run."""
    summary: TrainingSummary = cvjobs.train(images, tmp_path_factory.mktemp("runs") / "run", **OPTIONS)
    return summary


def test_every_image_is_counted(trained: TrainingSummary) -> None:
    assert trained.images == {"train": 60, "val": 13}
    assert trained.to_pandas(["epoch"])["epoch"].tolist() == [1, 2, 3]
    assert (trained.failed, trained.unlabelled, trained.leaks, trained.classes) == (2, 1, 1, 3)
    errors = pd.read_parquet(Path(trained.out) / "errors.parquet")
    assert errors[["path", "split", "code"]].to_numpy().tolist() == [
        ["train/red/bad <b>.png", "train", "not_an_image"],
        ["train/red/gone.png", "", "list_vanished"],
    ]
    leaks = pd.read_parquet(Path(trained.out) / "leaks.parquet")
    assert leaks[["path", "train_path"]].to_numpy().tolist() == [["val/blue/copy.png", "train/blue/000.png"]]


def test_what_a_run_leaves(trained: TrainingSummary) -> None:
    out = Path(trained.out)
    history = pd.read_parquet(out / "history.parquet")
    assert history["epoch"].tolist() == [1, 2, 3]
    assert trained.metric == history["metric"].max()
    predictions = pd.read_parquet(out / "predictions.parquet")
    assert len(predictions) == 13
    assert (predictions["label"] == predictions["predicted"]).mean() == pytest.approx(trained.metric)
    assert not (out / "cache").exists()
    page = (out / "report.html").read_text()
    for text in (
        "Loss of training and validation",
        "bad &lt;b&gt;.png",
        "Learning rate",
        "What it cost",
        "calibration error",
        "as augmentation makes",
        *CLASSES,
    ):
        assert text in page
    assert "<b>.png" not in page


def test_the_metadata_of_the_model_are_in_order(trained: TrainingSummary) -> None:
    content = (Path(trained.out) / "model.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    names = list(json.loads(content[8 : 8 + size])["__metadata__"])
    assert len(names) > 2
    assert names == sorted(names)
    assert size % 8 == 0


def test_mistakes_have_maps_and_a_page_is_worth_more_than_those(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {**OPTIONS, "epochs": 1, "lr": 1e-9}  # which learns nothing
    summary = cvjobs.train(images, tmp_path / "run", **options)
    predictions = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    wrong = int((predictions["label"] != predictions["predicted"]).sum())
    page = Path(summary.out, "report.html")
    assert 0 < wrong == page.read_text().count('class="beside"')
    assert "Grad-CAM" in page.read_text()
    (tmp_path / "run" / "summary.json").unlink()
    monkeypatch.setitem(sys.modules, "captum.attr", None)  # as where the extra is not installed
    cvjobs.train(images, tmp_path / "run", **options)
    text = page.read_text()
    assert "Without maps of what speaks for a class: " in text
    assert 'class="beside"' not in text
    assert text.count("is red") + text.count("is blue") + text.count("is green") == wrong


def test_a_head_that_begins_as_the_weights_own_is_another_run(images: Path, tmp_path: Path) -> None:
    source = registry.trainable("timm/test_resnet", weights="random", classes=3, seed=1)
    file = tmp_path / "own.safetensors"
    save_file(source.module.state_dict(), file, {"labels": json.dumps(["Red", "violet", "green"])})
    options = {**OPTIONS, "model": "timm/test_resnet", "img_size": "32", "weights": str(file), "epochs": 1}
    begun = cvjobs.train(images, tmp_path / "run", **options, init_head_from_labels=True)
    assert begun.inherited == 2
    assert "3 classes, 2 of them begun as the weights' own" in str(begun)
    assert "2 of 3 classes" in Path(begun.out, "report.html").read_text()
    with pytest.raises(WrongUse, match=r"begun with init-head-from-labels true, not false: .*--overwrite"):
        cvjobs.train(images, begun.out, **options)
    with pytest.raises(WrongUse, match="is about classes, which --task autoencoder has none of"):
        cvjobs.train(images, tmp_path / "other", task="autoencoder", init_head_from_labels=True)


def test_events_of_a_run_that_has_ended(images: Path, trained: TrainingSummary, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(trained.out, out)
    for _ in range(2):
        assert cvjobs.train(images, out, **OPTIONS, tensorboard=True).up_to_date
    assert curves(str(out)) == expected(str(out))
    begun = cvjobs.train(images, out, **{**OPTIONS, "epochs": 1}, overwrite=True)
    assert begun.epochs == 1
    assert not (out / "tensorboard").exists()


def test_the_same_command_is_up_to_date(images: Path, trained: TrainingSummary) -> None:
    before = (Path(trained.out) / "model.safetensors").stat().st_mtime_ns
    again = cvjobs.train(images, trained.out, **OPTIONS)
    assert again.up_to_date
    assert "up to date" in str(again)
    assert (Path(trained.out) / "model.safetensors").stat().st_mtime_ns == before


def test_another_command_is_refused_with_the_difference(images: Path, trained: TrainingSummary) -> None:
    with pytest.raises(WrongUse, match=r"begun with lr 0.001, not 0.5: .*--overwrite"):
        cvjobs.train(images, trained.out, **OPTIONS, lr=0.5)


def test_other_images_are_refused(trained: TrainingSummary, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="begun with other images or labels"):
        cvjobs.train(folder(tmp_path / "others", 10), trained.out, **OPTIONS)


def test_a_run_is_a_model_for_classify_and_embed(
    images: Path, trained: TrainingSummary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(trained.out).parent)
    cvjobs.classify(images / "val", tmp_path / "labels", model="run")
    found = cvjobs.open(tmp_path / "labels").to_pandas().set_index("path")["label"]
    said = pd.read_parquet(Path(trained.out) / "predictions.parquet")
    assert {f"val/{path}": label for path, label in found.items()} == dict(
        zip(said["path"], said["predicted"], strict=True)
    )
    monkeypatch.chdir(tmp_path)
    again = cvjobs.classify(images / "val", tmp_path / "labels", model=trained.out)
    assert again.computed == 0  # it is the same model wherever it is named from


def test_with_a_section_of_cvjobs_yaml_and_more_workers_than_cores(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cvjobs.yaml").write_text(f"train:\n  data: {images}\n  out: run\n  model: small/cnn\n")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--workers", "4096"]) == 2
    cores = devices.cpus()
    assert capsys.readouterr().err == (
        f"cvjobs: --workers 4096 needs 4096 cores and this machine has {cores}: "
        f"use at most --workers {cores}, or --address of a cluster.\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_is_gone_does_not_start_over(images: Path, trained: TrainingSummary, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(trained.out, copy)
    shutil.rmtree(copy / "checkpoints")
    (copy / "summary.json").unlink()
    with pytest.raises(WrongUse, match="does not silently start over"):
        cvjobs.train(images, copy, **OPTIONS)
    again = cvjobs.train(images, copy, **OPTIONS, overwrite=True, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*/pixels.*"))) == 2  # one of each split, for other runs
    assert again.metric == trained.metric
    assert again.final_loss == trained.final_loss


class TestLabels:
    """Where labels and splits come from; nothing is decoded."""

    def test_of_class_folders_without_a_split_a_share_validates_by_the_hash_of_the_path(self, tmp_path: Path) -> None:
        listing = list_source(str(folder(tmp_path / "all", 40)))
        found = labels.label(listing, 0.25)
        assert len(found.splits["train"]) + len(found.splits["val"]) == 120
        assert 15 <= len(found.splits["val"]) <= 45
        shutil.rmtree(tmp_path / "all" / "red")
        fewer = labels.label(list_source(str(tmp_path / "all")), 0.25)
        kept = [path for path in found.splits["val"].rows["path"].to_pylist() if not path.startswith("red/")]
        assert fewer.splits["val"].rows["path"].to_pylist() == kept

    def test_a_csv_with_splits(self, tmp_path: Path) -> None:
        folder(tmp_path, 2)
        lines = ["path,label,split"]
        for name in CLASSES:
            lines += [f"{name}/000.png,{name},training", f"{name}/001.png,{name},Valid"]
        (tmp_path / "list.csv").write_text("\n".join(lines))
        found = labels.label(list_source(str(tmp_path / "list.csv")), 0.2)
        assert found.classes == CLASSES
        assert found.splits["val"].rows["path"].to_pylist() == [f"{name}/001.png" for name in CLASSES]
        assert labels.counts(found.splits["train"].labels, 3).tolist() == [1, 1, 1]

    def test_several_labels(self, tmp_path: Path) -> None:
        folder(tmp_path, 2)
        text = "path,labels,split\nred/000.png,a|b,train\nred/001.png,b,val\nblue/000.png,,train\n"
        (tmp_path / "list.csv").write_text(text)
        found = labels.label(list_source(str(tmp_path / "list.csv")), 0.2)
        assert found.multilabel
        assert found.classes == ("a", "b")
        assert found.splits["train"].labels.tolist() == [[1, 1]]
        assert found.unlabelled == 1

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("path\nred/000.png\n", "has no column `label`"),
            ("path,label,split\nred/000.png,a,dev\n", "has the split 'dev'"),
            ("path,label\nred/000.png,a\n", "has one class, a"),
            ("path,label,split\nred/000.png,a,val\nred/001.png,b,val\n", "no images to train on"),
        ],
    )
    def test_lists_that_cannot_be_trained_on(self, tmp_path: Path, text: str, said: str) -> None:
        folder(tmp_path, 2)
        (tmp_path / "list.csv").write_text(text)
        listing = list_source(str(tmp_path / "list.csv"))
        with pytest.raises(WrongUse, match=said):
            labels.label(listing, 0.2)


def test_one_json_object(trained: TrainingSummary, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for name, value in OPTIONS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert cli.main(["train", str(images), "-o", trained.out, *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["up_to_date"] is True


def test_overwrite_asks_nothing_of_the_run_that_it_replaces(images: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "run", {**OPTIONS, "epochs": 1}
    cvjobs.train(images, out, **options, precision="fp16")
    cvjobs.train(images, out, **options, overwrite=True)
    file = out / "config.json"
    assert json.loads(file.read_text())["identity"]["precision"] != "fp16"
    for damaged in ("{}", '{"identity": null}'):
        file.write_text(damaged)
        with pytest.raises(WrongUse, match=r"config.json is damaged: delete it, .* or give --overwrite to begin anew"):
            cvjobs.train(images, out, **options)
        assert not cvjobs.train(images, out, **options, overwrite=True).up_to_date


def test_the_output_of_another_command_is_no_place_for_a_run(images: Path, tmp_path: Path) -> None:
    cvjobs.embed(images / "val", tmp_path / "vectors", model="thumbnail/2")
    before = (tmp_path / "vectors" / "summary.json").read_bytes()
    for overwrite in (False, True):
        with pytest.raises(WrongUse, match=r"vectors holds images' results: choose another -o\."):
            cvjobs.train(images, tmp_path / "vectors", **OPTIONS, overwrite=overwrite)
    assert (tmp_path / "vectors" / "summary.json").read_bytes() == before
