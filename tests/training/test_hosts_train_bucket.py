"""Three hosts that share no folder train on images in a bucket, and the run is in it: whatever host dies meanwhile."""

from __future__ import annotations

import io
import itertools
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import hosts
import numpy as np
import pandas as pd
import pytest
from buckets import KEYS, Bucket, made, server
from commands import CLI, run, started, until
from hosts import Cluster, Host
from training import SIDE, folder

pytestmark = pytest.mark.faults(minutes=15)

EPOCHS = 60
RUN = ("--model", "small/cnn", "--epochs", EPOCHS, "--img-size", SIDE, "--recipe", "quick", "--batch-size", 16)
TWO = ("--workers", 2)  # a third host stands in for one that dies
OWN = "/mnt/own"  # of each host, which no other sees
COLUMNS = ["epoch", "lr", "train_loss", "val_loss", "metric"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with hosts.cluster(tmp_path, **KEYS, XDG_CACHE_HOME=OWN, OMP_NUM_THREADS="1") as made:
        yield made


@pytest.fixture
def bucket(cluster: Cluster, images: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket with the images, which all hosts reach."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with server(cluster.here) as endpoint:
        bucket = made(endpoint, "hosts")
        bucket.upload(images, "images")
        yield bucket


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("images"), 20)


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The curve of two workers whom nothing happens to."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch, server() as endpoint:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        bucket = made(endpoint, "whole")
        bucket.upload(images, "images")
        # From a bucket, too: the order of the images begins with that of the listing.
        ended = run("train", bucket.url("images"), "-o", out, *RUN, *TWO, *bucket.options)
    assert ended.code == 0, ended
    return curve((out / "history.parquet").read_bytes())


def curve(content: bytes) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(content))[COLUMNS]


def checkpoints(bucket: Bucket) -> int:
    """The number of the newest checkpoint."""
    numbers = [Path(key).stem for key in bucket.keys("run/checkpoints") if key.endswith(".json")]
    return int(max(numbers, default="0"))


def trains(cluster: Cluster, bucket: Bucket, name: str, workers: Sequence[object] = TWO) -> list[str]:
    """The command, as a job that is sent from the head."""
    words = ("train", bucket.url("images"), "-o", bucket.url("run"), *RUN, *workers, "--id", name, *bucket.options)
    return cluster.head.words(*CLI, *words)


def goes_on(process: subprocess.Popen[str], bucket: Bucket, more: int) -> None:
    """Wait for so many more checkpoints."""
    wanted = checkpoints(bucket) + more
    until(lambda: checkpoints(bucket) >= wanted or process.poll() is not None, 600)
    assert process.poll() is None, process.communicate()


def busy(cluster: Cluster) -> list[Host]:
    """The machines without the head on which workers train."""
    return [host for host in cluster.hosts[1:] if host.processes("ray::RayTrainWo")]


def ends(process: subprocess.Popen[str]) -> None:
    """Wait for the end of a training that nothing keeps from it."""
    _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    print(said)


def assert_same(bucket: Bucket, undisturbed: pd.DataFrame) -> None:
    """Each epoch is there once, with the numbers that it has where nothing happens."""
    found = curve(bucket.read("run/history.parquet"))
    assert found["epoch"].tolist() == list(range(1, EPOCHS + 1))
    assert np.abs(found.to_numpy() - undisturbed.to_numpy()).max() < 1e-6


def test_a_worker_host_and_then_the_head_die(cluster: Cluster, bucket: Bucket, undisturbed: pd.DataFrame) -> None:
    with started(trains(cluster, bucket, "first"), **cluster.client) as process:
        goes_on(process, bucket, 3)
        assert {place for place, _, _ in cluster.actors("Notes")} == {"host0"}  # the command's, whichever host ends
        busy(cluster)[0].end()
        goes_on(process, bucket, 3)
        cluster.head.end()
    cluster.up()
    tries = itertools.count()

    def repeated() -> bool:
        with started(trains(cluster, bucket, f"again{next(tries)}"), **cluster.client) as process:
            _, err = process.communicate(timeout=900)
        assert process.returncode in (0, 5), err  # 5: the heart of the lost command still seems to beat
        return process.returncode == 0

    until(repeated, 300)
    assert_same(bucket, undisturbed)
    assert all(host.do("sh", "-c", f"ls -d {OWN}/cvjobs/decoded/* || true") == "" for host in cluster.hosts)


def test_a_worker_host_is_cut_off_for_a_minute(cluster: Cluster, bucket: Bucket, undisturbed: pd.DataFrame) -> None:
    with started(trains(cluster, bucket, "cut"), **cluster.client) as process:
        goes_on(process, bucket, 3)
        host = busy(cluster)[0]
        host.cut()
        time.sleep(60)
        host.heal()
        ends(process)
    assert_same(bucket, undisturbed)


def test_a_spot_machine_is_taken_away_with_notice(cluster: Cluster, bucket: Bucket, undisturbed: pd.DataFrame) -> None:
    with started(trains(cluster, bucket, "spot"), **cluster.client) as process:
        goes_on(process, bucket, 3)
        host = busy(cluster)[0]
        cluster.drain(host, 20)
        time.sleep(20)
        host.end()
        ends(process)
    assert_same(bucket, undisturbed)


def test_fewer_go_on_where_a_host_is_lost(cluster: Cluster, bucket: Bucket) -> None:
    with started(trains(cluster, bucket, "fewer", ("--workers", "1:2")), **cluster.client) as process:
        goes_on(process, bucket, 3)
        busy(cluster)[0].end()
        ends(process)
    found = curve(bucket.read("run/history.parquet"))
    assert found["epoch"].tolist() == list(range(1, EPOCHS + 1))
    assert np.isfinite(found.to_numpy()).all()
