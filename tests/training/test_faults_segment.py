"""Training of segmenters that is killed, shared by two workers, or to learn a few images by heart."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import masked
import pyarrow.parquet as pq
import pytest
from commands import CLI, kill, run, started, until

import cvjobs
from cvjobs.networks.torchvision import segmenters

pytestmark = pytest.mark.faults

WORDS = [
    "--task", "segment", "--model", "torchvision/lraspp+shufflenet_v2_x0_5", "--weights", "random", "--img-size", "48",
    "--batch-size", "4",
]  # fmt: skip
ONE: dict[str, Any] = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return masked.folder(tmp_path_factory.mktemp("images"), 24, 5)


def trained(images: Path, out: Path, *words: str) -> dict[str, Any]:
    ended = run("train", images, "-o", out, *WORDS, *words, "--json", **ONE)
    assert (ended.code, ended.left) == (0, []), ended
    summary: dict[str, Any] = json.loads(ended.out)
    return summary


def curve(out: Path) -> list[tuple[float, ...]]:
    rows = pq.read_table(out / "history.parquet").to_pylist()
    return [(row["epoch"], row["train_loss"], row["val_loss"], row["metric"]) for row in rows]


def checkpoints(out: Path) -> set[str]:
    with contextlib.suppress(FileNotFoundError):
        return {name for name in os.listdir(out / "checkpoints") if name.isdigit()}
    return set()


@pytest.mark.faults(minutes=3)
def test_kills_cost_nothing(images: Path, tmp_path: Path) -> None:
    epochs = ("--epochs", "12")
    trained(images, tmp_path / "whole", *epochs)
    killed, moments = tmp_path / "killed", random.Random(10)
    for _ in range(4):
        before = checkpoints(killed)
        with started([*CLI, "train", str(images), "-o", str(killed), *WORDS, *epochs], **ONE) as process:
            until(lambda: checkpoints(killed) != before or process.poll() is not None)  # noqa: B023
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moments.uniform(0.0, 1.0))
            kill(process, signal.SIGKILL)
            process.wait()
        assert cvjobs.verify(str(killed)).exit_code == 0
    trained(images, killed, *epochs)
    assert curve(killed) == curve(tmp_path / "whole")
    assert (killed / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


@pytest.mark.ray
@pytest.mark.faults(minutes=2)
def test_two_workers_are_as_good_as_one(images: Path, tmp_path: Path) -> None:
    epochs = ("--epochs", "8")
    one, both = trained(images, tmp_path / "one", *epochs), trained(images, tmp_path / "two", *epochs, "--workers", "2")
    assert both["metric"] == pytest.approx(one["metric"], abs=0.15)
    rows = pq.read_table(tmp_path / "two" / "segmentation.parquet").to_pylist()
    assert len(rows) == 5
    counts = [[sum(column) for column in zip(*(row[name] for row in rows), strict=True)] for name in
              ("right", "truth", "predicted")]  # fmt: skip
    shares = [right / (truth + said - right) for right, truth, said in zip(*counts, strict=True)]
    assert both["metric"] == pytest.approx(sum(shares) / len(shares), abs=1e-12)


@pytest.mark.faults(minutes=3)
@pytest.mark.parametrize(
    "model", [*segmenters.names(), "lraspp+mobilenet_v2", "deeplabv3+resnet18", "fcn+mobilenet_v2"]
)
def test_eight_images_are_learnt_by_heart(model: str, tmp_path: Path) -> None:
    images = masked.folder(tmp_path / "images", 8, 0, times=2)
    shutil.copytree(images / "train", images / "val", dirs_exist_ok=True)
    for copy in range(1, 5):  # several steps an epoch, for each ends with a validation
        for file in (images / "val").rglob("*.png"):
            kind = file.parent.name
            shutil.copy(file, images / "train" / kind / f"{copy}-{file.name}")
    found = cvjobs.train(
        images, tmp_path / "run", task="segment", model=f"torchvision/{model}", weights="random", img_size="96",
        epochs=60, patience=12, batch_size=8, scale_jitter="0.75:1.25", color_jitter=0.0,
        lr=1.6e-2,
    )  # fmt: skip
    assert found.metric >= 0.9
