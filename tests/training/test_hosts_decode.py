"""Three hosts that share nothing but a bucket: each of two workers' machines decodes each image once, the head none."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hosts
import pandas as pd
import pytest
from buckets import KEYS, Bucket, made, server
from commands import CLI, started
from hosts import Cluster
from training import SIDE, folder

pytestmark = pytest.mark.faults(minutes=10)

WORDS = ("--model", "small/cnn", "--epochs", 2, "--img-size", SIDE, "--recipe", "quick", "--batch-size", 16)
PAGE = 16 + 24  # images that the page shows at most: augmented ones, and mistakes


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A head without a GPU, and two machines with two each."""
    with hosts.cluster(tmp_path, (0, 2, 2), **KEYS, XDG_CACHE_HOME="/mnt/own", OMP_NUM_THREADS="1") as made:
        yield made


def test_each_machine_with_workers_decodes_each_image_once(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    log = tmp_path / "asked"
    with server(cluster.here, log) as endpoint:
        bucket: Bucket = made(endpoint, "hosts")
        folder(tmp_path / "images" / "train", 100)
        folder(tmp_path / "images" / "val", 6, seed=1)
        bucket.upload(tmp_path / "images", "images")
        words = ("train", bucket.url("images"), *WORDS, *bucket.options)
        command = cluster.head.words(*CLI, *words, "-o", bucket.url("run"), "--workers", 4)
        with started(command, **cluster.client) as process:
            _, err = process.communicate(timeout=900)
        assert process.returncode == 0, err
        asked = Counter(re.findall(r"^([\d.]+) .*\"GET /hosts/(images/[^ ?]+)", log.read_text(), re.MULTILINE))
        found = pd.read_parquet(io.BytesIO(bucket.read("run/history.parquet")))
    each = {host.name: [count for (ip, _), count in asked.items() if ip == host.address] for host in cluster.hosts}
    assert each["host1"] == each["host2"] == [1] * 318
    assert len(each["host0"]) <= PAGE
    assert found["workers"].tolist() == [4, 4]
    for host in cluster.hosts:
        assert host.do("sh", "-c", "ls -d /mnt/own/cvjobs/decoded/* || true") == ""
