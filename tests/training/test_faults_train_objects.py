"""Detectors and segmenters in training: damaged checkpoints, other workers, the first batch, a search for a rate."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import block_pictures
import masked
import pyarrow.parquet as pq
import pytest
from commands import run

import cvjobs

pytestmark = pytest.mark.faults(minutes=5)

MODELS = {"detect": "ssdlite320_mobilenet_v3_large", "segment": "torchvision/lraspp+shufflenet_v2_x0_5"}


@pytest.fixture(scope="module", params=["detect", "segment"])
def task(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def data(task: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data") / "data"
    return block_pictures.coco(place, {"train": 8, "val": 2}) if task == "detect" else masked.folder(place, 8, 2)


def train(task: str, data: Path, out: Path, **more: Any) -> Any:
    options: dict[str, Any] = {"task": task, "model": MODELS[task], "weights": "random", "img_size": "64",
                               "batch_size": 4, "epochs": 3, **more}  # fmt: skip
    return cvjobs.train(data, out, **options)


@pytest.fixture(scope="module")
def whole(task: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs, of which the last two have checkpoints."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(task, data, out)
    return out


def curve(out: Path) -> list[tuple[float, ...]]:
    rows = pq.read_table(out / "history.parquet").to_pylist()
    return [(row["epoch"], row["train_loss"], row["val_loss"], row["metric"]) for row in rows]


def unfinished(whole: Path, out: Path) -> Path:
    """A copy of a run that did not come to its end; returns its newest checkpoint."""
    shutil.copytree(whole, out)
    (out / "summary.json").unlink()  # the model stays: the best epoch's checkpoint need not be one of the two
    return max((place for place in (out / "checkpoints").iterdir() if place.name.isdigit()), key=lambda one: one.name)


@pytest.mark.parametrize("how", ["model.safetensors", "optimizer.pt", "gone"])
def test_training_goes_on_from_the_checkpoint_before(
    task: str, data: Path, whole: Path, tmp_path: Path, how: str
) -> None:
    newest = unfinished(whole, tmp_path / "run")
    if how == "gone":
        shutil.rmtree(newest)
    else:
        content = (newest / how).read_bytes()
        (newest / how).write_bytes(content[: len(content) // 2])
    train(task, data, tmp_path / "run")
    assert curve(tmp_path / "run") == curve(whole)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.ray
def test_another_number_of_workers_goes_on(task: str, data: Path, whole: Path, tmp_path: Path) -> None:
    shutil.rmtree(unfinished(whole, tmp_path / "run"))
    words = ("--task", task, "--model", MODELS[task], "--weights", "random", "--img-size", "64", "--batch-size", "4")
    ended = run("train", data, "-o", tmp_path / "run", *words, "--epochs", "3", "--workers", "2")  # Ray warns, apart
    assert (ended.code, ended.left) == (0, []), ended
    assert [row[0] for row in curve(tmp_path / "run")] == [1, 2, 3]
    assert curve(tmp_path / "run")[:2] == curve(whole)[:2]
    assert cvjobs.verify(str(tmp_path / "run")).exit_code == 0


def test_the_first_batch_is_learnt_and_a_rate_is_found(task: str, data: Path, tmp_path: Path) -> None:
    assert train(task, data, tmp_path / "run", epochs=1, overfit_check=True).epochs == 1
    found = train(task, data, tmp_path / "rate", find_lr=True)
    assert 10 < found.steps <= 100
    assert found.lr is None or found.lr > 4e-6  # which no step's images alone decide
    assert (tmp_path / "rate" / "find-lr.html").exists()
