"""A cluster that starts at zero workers: Ray's own fake provider starts machines when they are asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hosts
import pandas as pd
import pytest
from commands import CLI, TESTS, exact, started
from hosts import Autoscaled
from training import SIDE, folder

from cvjobs.common import devices

pytestmark = pytest.mark.faults
TOYS = [sys.executable, str(TESTS / "with_toys.py")]
MODEL = ("--model", "torchvision/mobilenet_v2", "--weights", "random")


@pytest.fixture(scope="module")
def zero(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Autoscaled]:
    """A head without cores, whose autoscaler may start two machines with two GPUs each."""
    kinds = {"gpus": {"CPU": 2.0, "GPU": 2.0}}
    with hosts.autoscaled(tmp_path_factory.mktemp("zero"), kinds, 2, **{devices.SIMULATED: "2"}) as made:
        yield made


def ended(process: subprocess.Popen[str]) -> str:
    """What a command said on stderr, which must end well."""
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, (out, err)
    return err


def test_a_cluster_of_no_workers_is_asked_for_some(zero: Autoscaled, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = zero.host.words(*TOYS, "drowse", photos, "-o", out, *MODEL, "--precision", "fp32", "--address", zero.address)
    with started(line, **zero.variables) as process:
        told = ended(process)
    assert "embed: the cluster is asked for machines with 2 GPUs, for 2 workers\n" in told
    assert "embed: waiting for machines of the cluster for 2 workers" in told
    exact(out, photos, 400)


def test_a_training_begins_with_what_comes(zero: Autoscaled, tmp_path: Path) -> None:
    images, out = folder(tmp_path / "images", 40), tmp_path / "run"
    words = ["train", str(images), "-o", str(out), "--model", "small/cnn", "--img-size", str(SIDE)]
    words += ["--recipe", "quick", "--batch-size", "16", "--epochs", "2", "--address", zero.address]
    with started(zero.host.words(*CLI, *words), **zero.variables) as process:
        ended(process)
    assert set(pd.read_parquet(out / "history.parquet")["workers"]) <= {2, 3, 4}
