"""A head that is gone or cut off while commands on another machine use its cluster: a sentence, and no endless wait."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import hosts
import pandas as pd
import pytest
from commands import CLI, TESTS, parts, started, until
from hosts import Cluster
from training import SIDE, folder

pytestmark = pytest.mark.faults(minutes=5)
TOYS = [sys.executable, str(TESTS / "with_toys.py")]
LOST = (
    "cvjobs: Ray at {} has not answered for [0-9]+ s: see whether its head runs, then run the same command, which "
    "continues."
)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with hosts.cluster(tmp_path, (0, 0, 0), (1, 2, 2), OMP_NUM_THREADS="1") as made:
        yield made


@pytest.mark.parametrize("how", ["killed", "cut off"])
def test_commands_end_with_a_sentence(cluster: Cluster, slow_photos: Path, tmp_path: Path, how: str) -> None:
    address = f"{cluster.head.address}:{hosts.PORT}"
    own = ("--workers", "1", "--address", address)
    images, run, out = folder(tmp_path / "images", 20), tmp_path / "run", tmp_path / "out"
    epochs = ("--model", "small/cnn", "--img-size", str(SIDE), "--recipe", "quick", "--epochs", "100000")
    train = cluster.hosts[1].words(*CLI, "train", images, "-o", run, *epochs, "--batch-size", 16, *own)
    source = many(slow_photos, tmp_path / "photos", 60)
    embed = cluster.hosts[1].words(*TOYS, "drowse", source, "-o", out, "--model", "thumbnail/4", *own)
    with started(train, **cluster.variables) as one, started(embed, **cluster.variables) as two:

        def working() -> bool:
            return (run / "history.parquet").exists() and parts(out) > 0

        until(lambda: working() or one.poll() is not None or two.poll() is not None, 300)
        assert working(), (one.poll(), two.poll())
        if how == "killed":
            for gcs in cluster.head.processes("gcs_server"):
                gcs.kill()
        else:
            cluster.head.cut()
        for process in (one, two):
            out_, err = process.communicate(timeout=400)
            assert (process.returncode, out_) == (1, ""), err
            assert re.search(LOST.format(address), err), err
            assert "Traceback" not in err
    assert pd.read_parquet(run / "history.parquet")["epoch"].is_monotonic_increasing


def many(photos: Path, root: Path, times: int) -> Path:
    """So many times the photos, as links."""
    for number in range(times):
        (root / str(number)).mkdir(parents=True)
        for photo in photos.iterdir():
            (root / str(number) / photo.name).hardlink_to(photo)
    return root
