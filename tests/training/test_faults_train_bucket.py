"""Trainings in a bucket that are killed, taken over and repeated, as commands: one history and one model in the end."""

from __future__ import annotations

import io
import random
import re
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from buckets import Bucket, made
from commands import CLI, Ended, kill, run, started, until
from training import TIMED, folder

pytestmark = pytest.mark.faults(minutes=8)

EPOCHS = 60
WORDS = ("--model", "small/cnn", "--epochs", EPOCHS, "--img-size", 8, "--recipe", "quick", "--batch-size", 16)
KILLS = 10
TWO = ("--workers", 2)


@pytest.fixture
def bucket(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    return made(s3, f"faults{time.time_ns()}")


def rows(content: bytes) -> list[dict[str, Any]]:
    """The rows of a history, without what was measured."""
    return [
        {name: value for name, value in row.items() if name not in TIMED}
        for row in pq.read_table(io.BytesIO(content)).to_pylist()
    ]


def holders(bucket: Bucket, key: str) -> int:
    """How many commands have held a run so far."""
    found = [re.fullmatch(r".*/epoch-(\d+)\.json", name) for name in bucket.keys(f"{key}/_cvjobs/lease")]
    return max((int(match[1]) for match in found if match), default=0)


def contents(bucket: Bucket) -> dict[str, bytes]:
    """All of a run but its lock."""
    return {key: bucket.read(key) for key in bucket.keys("run/") if "/_cvjobs/lease/" not in key}


def assert_same(bucket: Bucket, key: str, whole: Path) -> None:
    """The run in a bucket has the history and the model of one in a folder, to the bit."""
    assert rows(bucket.read(f"{key}/history.parquet")) == rows((whole / "history.parquet").read_bytes())
    assert bucket.read(f"{key}/model.safetensors") == (whole / "model.safetensors").read_bytes()


def test_kills_at_random_moments_end_in_the_same_history_and_model(tmp_path: Path, bucket: Bucket) -> None:
    images, moments = folder(tmp_path / "images", 20), random.Random(KILLS)
    ended = run("train", images, "-o", tmp_path / "whole", *WORDS)
    assert ended.code == 0, ended
    outs = ["run0"]
    began: list[int] = []

    def train() -> list[str]:
        return [*map(str, ("train", images, "-o", bucket.url(outs[-1]), *WORDS)), *bucket.options]

    while len(began) < KILLS:
        before = holders(bucket, outs[-1])
        with started([*CLI, *train()]) as process:
            until(lambda: process.poll() is not None or holders(bucket, outs[-1]) > before)  # noqa: B023
            time.sleep(moments.uniform(0.0, 8.0))
            if process.poll() is None:
                began.append(len(bucket.keys(f"{outs[-1]}/checkpoints")))
            kill(process, signal.SIGKILL)
            process.wait()
        if process.returncode == 0:
            outs.append(f"run{len(outs)}")
    last: Ended = run(*train())
    assert last.code == 0, last
    print("checkpoint objects at each kill:", began, "runs:", len(outs))
    for out in outs:
        assert_same(bucket, out, tmp_path / "whole")
        assert len(bucket.keys(f"{out}/checkpoints")) == 4


def test_a_command_that_stood_still_is_taken_over_and_never_writes_again(tmp_path: Path, bucket: Bucket) -> None:
    images = folder(tmp_path / "images", 20)
    ended = run("train", images, "-o", tmp_path / "whole", *WORDS)
    assert ended.code == 0, ended
    words = [*map(str, ("train", images, "-o", bucket.url("run"), *WORDS)), *bucket.options]
    with started([*CLI, *words]) as process:
        until(lambda: len(bucket.keys("run/checkpoints")) > 2)
        kill(process, signal.SIGSTOP)
        freed = run("unlock", bucket.url("run"), "--yes", *bucket.options)
        assert freed.code == 0, freed
        last = run(*words)
        assert last.code == 0, last
        left = contents(bucket)
        kill(process, signal.SIGCONT)
        _, said = process.communicate()
        assert process.returncode == 5, said
        assert "Another run took" in said
    assert contents(bucket) == left
    assert_same(bucket, "run", tmp_path / "whole")


@pytest.mark.ray
def test_two_workers_are_killed_and_go_on(tmp_path: Path, bucket: Bucket) -> None:
    images = folder(tmp_path / "images", 20)
    ended = run("train", images, "-o", tmp_path / "whole", *WORDS, *TWO)
    assert ended.code == 0, ended
    words = [*map(str, ("train", images, "-o", bucket.url("run"), *WORDS, *TWO)), *bucket.options]
    with started([*CLI, *words]) as process:
        until(lambda: len(bucket.keys("run/checkpoints")) > 2)
        kill(process, signal.SIGINT)
        _, said = process.communicate()
        assert process.returncode == 130, said
    with started([*CLI, *words]) as process:
        before = bucket.keys("run/checkpoints")
        until(lambda: bucket.keys("run/checkpoints") != before)
        kill(process, signal.SIGKILL)
    last = run(*words)
    assert last.code == 0, last
    assert_same(bucket, "run", tmp_path / "whole")
