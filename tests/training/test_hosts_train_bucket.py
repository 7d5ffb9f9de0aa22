"""Three hosts that share no folder train on images in a bucket, and the run is in it: whatever host dies meanwhile."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hosts
import numpy as np
import pandas as pd
import pytest
from buckets import KEYS, Bucket, made, server
from commands import CLI, run, started, until
from hosts import Cluster
from training import SIDE, folder

pytestmark = pytest.mark.faults(minutes=15)

EPOCHS = 60
TWO = ("--workers", 2)  # a third host stands in for one that dies
WORDS = ("--model", "small/cnn", "--epochs", EPOCHS, "--img-size", SIDE, "--recipe", "quick", "--batch-size", 16, *TWO)
OWN = "/mnt/own"  # of each host, which no other sees
COLUMNS = ["epoch", "lr", "train_loss", "val_loss", "metric"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with hosts.cluster(tmp_path, **KEYS, XDG_CACHE_HOME=OWN, OMP_NUM_THREADS="1") as made:
        yield made


@pytest.fixture
def bucket(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with server(cluster.here) as endpoint:
        yield made(endpoint, "hosts")


def curve(content: bytes) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(content))[COLUMNS]


def checkpoints(bucket: Bucket) -> int:
    """The number of the newest checkpoint."""
    numbers = [Path(key).stem for key in bucket.keys("run/checkpoints") if key.endswith(".json")]
    return int(max(numbers, default="0"))


def trains(cluster: Cluster, bucket: Bucket, name: str) -> list[str]:
    """The command, as a job that is sent from the head."""
    words = ("train", bucket.url("images"), "-o", bucket.url("run"), *WORDS, "--id", name, *bucket.options)
    return cluster.head.words(*CLI, *words)


def goes_on(process: subprocess.Popen[str], bucket: Bucket, more: int) -> None:
    """Wait for so many more checkpoints."""
    wanted = checkpoints(bucket) + more
    until(lambda: checkpoints(bucket) >= wanted or process.poll() is not None, 600)
    assert process.poll() is None, process.communicate()


def test_a_worker_host_and_then_the_head_die(cluster: Cluster, bucket: Bucket, tmp_path: Path) -> None:
    bucket.upload(folder(tmp_path / "images", 20), "images")
    # From the bucket, too: the order of the images begins with that of the listing.
    ended = run("train", bucket.url("images"), "-o", tmp_path / "whole", *WORDS, *bucket.options)
    assert ended.code == 0, ended
    with started(trains(cluster, bucket, "first"), **cluster.client) as process:
        goes_on(process, bucket, 3)
        busy = [host for host in cluster.hosts[1:] if host.processes("ray::RayTrainWo")]
        busy[0].end()
        goes_on(process, bucket, 3)
        cluster.head.end()
    cluster.up()

    def repeated() -> bool:
        with started(trains(cluster, bucket, f"again{checkpoints(bucket)}"), **cluster.client) as process:
            _, err = process.communicate(timeout=900)
        assert process.returncode in (0, 5), err  # 5: the heart of the lost command still seems to beat
        return process.returncode == 0

    until(repeated, 300)
    found, wanted = curve(bucket.read("run/history.parquet")), curve((tmp_path / "whole/history.parquet").read_bytes())
    assert found["epoch"].tolist() == list(range(1, EPOCHS + 1))
    assert np.abs(found.to_numpy() - wanted.to_numpy()).max() < 1e-6
    assert all(host.do("sh", "-c", f"ls -d {OWN}/cvjobs/decoded/* || true") == "" for host in cluster.hosts)
