"""What a training waited for: measured by epoch, kept in its history, and said on its page."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from training import plan

from cvjobs.common import gpu_meter
from cvjobs.common.gpu_meter import GpuMeter
from cvjobs.training import artifacts
from cvjobs.training.loop.loop import Loop
from cvjobs.training.loop.process_group import Alone
from cvjobs.training.loop.step_times import StepTimes
from cvjobs.training.plan import HISTORY
from cvjobs.training.report.training_cost import bound, costs

CPU = torch.device("cpu")
BEFORE = {  # a row of a version that measured nothing more
    "epoch": 1, "lr": 1e-3, "train_loss": 1.0, "val_loss": 1.1, "metric": 0.5, "images_per_second": 100.0,
    "seconds": 2.0, "workers": 1,
}  # fmt: skip


def test_the_time_of_an_epoch_is_shared_out() -> None:
    ticks = count()
    times = StepTimes(CPU, clock=lambda: float(next(ticks)))
    for _ in times.waited([1, 2]):  # three looks for a batch, of which the last finds none
        with times.step():
            next(ticks)
    taken = times.taken(10.0)
    assert (taken.data_wait, taken.step_share, taken.gpu_busy, taken.gpu_memory) == (0.3, 0.4, None, None)
    assert times.taken(1.0).data_wait == 0.0


def test_a_history_has_the_shares_of_each_epoch_and_none_of_those_before(tmp_path: Path) -> None:
    made = plan(tmp_path, "run", epochs=2)
    Loop(made, Alone(CPU), lambda _: False, lambda _: None).run()
    rows = artifacts.rows(made.run, HISTORY).to_pylist()
    for row in rows:
        assert 0 < row["data_wait"] + row["step_share"] <= 1
        assert row["gpu_busy"] is row["gpu_memory"] is None
    artifacts.history(made, [BEFORE, rows[1]], lambda: None)
    mixed = artifacts.rows(made.run, HISTORY).to_pylist()
    assert mixed[0] == BEFORE | dict.fromkeys(("data_wait", "step_share", "gpu_busy", "gpu_memory"))
    assert mixed[1] == rows[1]
    words = dict(costs(made, mixed, "machine"))
    assert words["waited for images"].endswith("% of the time")
    assert not words.keys() & {"GPU busy", "GPU memory", "of the GPU's peak"}
    assert "waited for images" not in dict(costs(made, [BEFORE], "machine"))


def test_the_page_says_what_the_driver_counted(tmp_path: Path) -> None:
    made = replace(plan(tmp_path, "run", images=60), flops=4.1e9)
    row = {**BEFORE, "data_wait": 0.02, "step_share": 0.9, "gpu_busy": 0.09, "gpu_memory": 3 << 30}
    words = dict(costs(made, [row, {**row, "gpu_busy": 0.19, "seconds": 0.0}], "machine", "NVIDIA H200"))
    assert words["GPU busy"] == "9% of the time"
    assert words["bounded by"].startswith("giving the GPU its work")
    assert words["GPU memory"] == "3.22 GB"
    assert words["of the GPU's peak"] == f"{3 * 4.1e9 * 60 / 989e12:.1%} (bf16)"


@pytest.mark.parametrize(
    ("data_wait", "busy", "words"),
    [(0.5, 0.3, "reading"), (0.01, 0.95, "the GPU"), (0.01, 0.1, "giving"), (0.4, None, "reading"), (0.01, None, "")],
)
def test_what_bounded_a_training(data_wait: float, busy: float | None, words: str) -> None:
    assert bound(data_wait, busy).startswith(words)
    assert bool(bound(data_wait, busy)) == bool(words)


def test_a_meter_looks_until_it_is_closed_and_outlives_a_driver_that_does_not_answer() -> None:
    seen, enough = iter([0.2, 0.6]), threading.Event()

    def read() -> float:
        found = next(seen, None)
        if found is None:
            enough.set()
            raise RuntimeError("the driver is gone")
        return found

    meter = GpuMeter(read, every=0.001)
    with meter.looking():
        assert enough.wait(30)
    assert meter.taken() == pytest.approx(0.4)
    assert meter.taken() is None
    assert gpu_meter.driver_reader("GPU-00000000-0000-0000-0000-000000000000") is None
    with GpuMeter(None).looking():
        pass
