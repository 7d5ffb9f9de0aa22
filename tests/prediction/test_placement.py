"""Where a batch job computes on this machine, with GPUs that a test has it pretend to have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import embed, rows, sentence, some

from cvjobs.common import devices
from cvjobs.common.errors import WrongUse
from cvjobs.prediction.placement import Placement

MODEL = ("--model", "torchvision/mobilenet_v2", "--weights", "random")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.SIMULATED, "2")


@pytest.mark.usefixtures("two_gpus")
def test_every_gpu_has_a_worker_and_two_may_share_one() -> None:
    assert Placement().device == "cuda"
    assert Placement().team("cuda", 100).workers == 2
    halves = Placement(gpus_per_worker=0.5).team("cuda", 100)
    assert [seat.gpus for seat in halves.seats] == [0.5] * 4
    with pytest.raises(WrongUse, match=r"--workers 5 needs 2.5 GPUs and this machine has 2: use at most --workers 4"):
        Placement(workers=5, gpus_per_worker=0.5).team("cuda", 100)


@pytest.mark.usefixtures("two_gpus")
def test_the_cpu_where_it_is_asked_for() -> None:
    assert Placement("cpu").device == "cpu"
    team = Placement("cpu").team("cpu", 100)
    assert (team.workers, team.distributed) == (1, False)


def test_a_gpu_that_is_not_there_is_a_sentence(photos: Path, tmp_path: Path) -> None:
    told = sentence(embed(photos, tmp_path / "out", *MODEL, "--device", "cuda"), 2)
    assert told == "--device cuda needs a CUDA GPU and this machine has none: leave --device out."


def test_a_run_with_nothing_to_do_asks_no_cluster(photos: Path, tmp_path: Path) -> None:
    source, out = some(photos, tmp_path / "photos", 4), tmp_path / "out"
    assert embed(source, out, *MODEL).code == 0
    again = embed(source, out, *MODEL, "--address", "127.0.0.1:9")
    assert again.code == 0, again
    assert "nothing to compute" in again.err


@pytest.mark.slow
def test_a_model_on_a_gpu_by_name_gives_the_same_vectors(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = some(photos, tmp_path / "photos", 40)
    assert embed(source, tmp_path / "cpu", *MODEL).code == 0
    monkeypatch.setenv(devices.SIMULATED, "1")
    assert embed(source, tmp_path / "gpu", *MODEL).code == 0
    made, wanted = (
        np.stack(rows(tmp_path / name)["embedding"].to_numpy(zero_copy_only=False)) for name in ("gpu", "cpu")
    )
    assert np.abs(made - wanted).max() < 1e-4
    assert "cuda" in (tmp_path / "gpu" / "report.html").read_text()
