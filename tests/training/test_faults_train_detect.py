"""Training a detector that is killed, and one that learns eight pictures by heart."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from block_pictures import coco
from commands import CLI, kill, run, started, until

import cvjobs

pytestmark = pytest.mark.faults

WORDS = ("--task", "detect", "--model", "ssdlite320_mobilenet_v3_large", "--weights", "random", "--img-size", "96",
         "--batch-size", "4", "--recipe", "quick", "--epochs", "12")  # fmt: skip
ONE: dict[str, Any] = {"OMP_NUM_THREADS": "1"}


def checkpoints(out: Path) -> set[str]:
    return {place.name for place in out.glob("checkpoints/*") if place.name.isdigit()}


def curve(out: Path) -> list[tuple[float, ...]]:
    rows = pq.read_table(out / "history.parquet").to_pylist()
    return [(row["epoch"], row["train_loss"], row["val_loss"], row["metric"]) for row in rows]


@pytest.mark.faults(minutes=15)
@pytest.mark.parametrize("more", [(), ("--mosaic", "0.6", "--mixup", "1.5", "--anchors", "auto")])
def test_kills_leave_the_curve_and_the_weights_as_they_are(tmp_path: Path, more: tuple[str, ...]) -> None:
    data = coco(tmp_path / "data", {"train": 12, "val": 2})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run("train", data, "-o", whole, *WORDS, *more, **ONE).code == 0
    moments = random.Random(4)
    for _ in range(10):
        before = checkpoints(killed)
        with started([*CLI, "train", str(data), "-o", str(killed), *WORDS, *more], **ONE) as process:
            until(lambda: checkpoints(killed) != before or process.poll() is not None)  # noqa: B023
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moments.uniform(0.0, 1.0))
            kill(process, signal.SIGKILL)
            process.wait()
    assert run("train", data, "-o", killed, *WORDS, *more, **ONE).code == 0
    assert curve(killed) == curve(whole)
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_eight_pictures_are_learnt_by_heart(tmp_path: Path) -> None:
    """AP50 of what it was trained on, from random weights; each picture is there eight times for longer epochs."""
    data = coco(tmp_path / "data", {"train": 8})
    whole = json.loads((data / "train.json").read_text())
    shutil.copytree(data / "train", data / "val")
    (data / "val.json").write_text(json.dumps(whole))
    several: dict[str, Any] = {**whole, "images": [], "annotations": []}
    for time in range(8):
        for image in whole["images"]:
            name = f"{time}-{image['file_name']}"
            shutil.copy(data / "train" / image["file_name"], data / "train" / name)
            several["images"].append({**image, "id": 100 * time + image["id"], "file_name": name})
        for one in whole["annotations"]:
            number = len(several["annotations"]) + 1
            several["annotations"].append({**one, "id": number, "image_id": 100 * time + one["image_id"]})
    (data / "train.json").write_text(json.dumps(several))
    cvjobs.train(
        data, tmp_path / "run", task="detect", backbone="mobilenet_v2", weights="random", img_size="96", epochs=20,
        batch_size=8, lr=0.008, scale_jitter="1:1", recipe="finetune",
    )  # fmt: skip
    history = pq.read_table(tmp_path / "run" / "history.parquet").to_pylist()
    assert max(row["AP50"] for row in history) >= 0.95
