"""What a training waited for: measured by epoch, kept in its history, and said on its page."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from training import loop, plan, summary

from cvjobs.common import gpu_meter
from cvjobs.common.errors import Stopped
from cvjobs.common.gpu_meter import GpuMeter, GpuReading
from cvjobs.training import artifacts
from cvjobs.training.loop.checkpoints import Checkpoints
from cvjobs.training.loop.step_times import StepTimes
from cvjobs.training.plan import HISTORY
from cvjobs.training.report.training_cost import costs, waits
from cvjobs.training.step_costs import StepCosts

CPU = torch.device("cpu")
BEFORE = {  # a row of a version that measured nothing more
    "epoch": 1, "lr": 1e-3, "train_loss": 1.0, "val_loss": 1.1, "metric": 0.5, "images_per_second": 100.0,
    "seconds": 2.0, "workers": 1,
}  # fmt: skip


def test_the_time_of_an_epoch_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr("cvjobs.common.timing.time.monotonic", lambda: float(next(ticks)))
    times = StepTimes(CPU)
    for _ in times.waited([1, 2]):  # three looks for a batch, of which the last finds none
        with times.step():
            next(ticks)
    taken = times.taken(10.0)
    assert (taken.data_wait, taken.step_share, taken.gpu_busy, taken.gpu_memory) == (0.3, 0.4, None, None)
    assert times.taken(1.0).data_wait == 0.0


def test_a_history_has_the_shares_of_each_epoch_and_none_of_those_before(tmp_path: Path) -> None:
    made = plan(tmp_path, "run", epochs=2)
    loop(made).run()
    rows = artifacts.rows(made.store(), HISTORY).to_pylist()
    for row in rows:
        assert row["data_wait"] > 0
        assert row["step_share"] > 0
        assert row["data_wait"] + row["step_share"] <= 1
        assert row["gpu_busy"] is row["gpu_memory"] is None
    assert StepCosts.mean([BEFORE]) is None
    mixed = StepCosts.mean([BEFORE, rows[1]])
    assert mixed is not None
    assert mixed.data_wait == pytest.approx(rows[1]["data_wait"])


def test_a_checkpoint_of_a_version_that_measured_nothing_goes_on(tmp_path: Path) -> None:
    made = plan(tmp_path, "run", epochs=2)
    with pytest.raises(Stopped):
        loop(made, lambda state: state.done == state.total).run()
    checkpoints = Checkpoints(made.store())
    found = checkpoints.newest(lambda _: None)
    assert found is not None
    assert [row["epoch"] for row in found.meta["history"]] == [1]
    meta = {**found.meta, "history": [BEFORE]}
    checkpoints.save(replace(found, meta=meta))
    checkpoints.wait()
    checkpoints.close()
    loop(made).run()
    first, second = artifacts.rows(made.store(), HISTORY).to_pylist()
    assert first == BEFORE | dict.fromkeys(("data_wait", "step_share", "gpu_busy", "gpu_memory"))
    assert second["step_share"] > 0


def test_the_page_says_what_a_cpu_computed_and_nothing_of_a_gpu(tmp_path: Path) -> None:
    made = replace(plan(tmp_path, "run"), flops=4.1e9)
    row = {**BEFORE, "seconds": 9.0, "data_wait": 0.02, "step_share": 0.95, "gpu_busy": None, "gpu_memory": None}
    shown = waits(made, [BEFORE, row])
    assert shown is not None
    assert [(what, share) for what, _, share in shown.bars] == [
        ("waited for images", "2%"), ("computed", "95%"), ("did the rest", "3%"),
    ]  # fmt: skip
    assert shown.top == "computed"
    assert shown.words.startswith("The processor bounded the training: it computed 95% of the time.")
    assert not {name for name, _ in costs(made, [row], "machine") if "GPU" in name}
    assert waits(made, [BEFORE]) is None


def test_the_page_says_what_the_driver_counted(tmp_path: Path) -> None:
    made = replace(plan(tmp_path, "run", images=60), flops=4.1e9)
    row = {**BEFORE, "data_wait": 0.02, "step_share": 0.9, "gpu_busy": 0.09, "gpu_memory": 3 << 30}
    history = [row, {**row, "gpu_busy": 0.19, "seconds": 0.0, "gpu_memory": 1 << 30}]
    words = dict(costs(made, history, "machine", "NVIDIA H200"))
    assert words["GPU memory"] == "3.22 GB"
    assert words["of the GPU's peak"] == f"{3 * 4.1e9 * 60 / 989e12:.1%} (bf16)"
    shown = waits(made, history)
    assert shown is not None
    assert [(what, share) for what, _, share in shown.bars[:2]] == [
        ("the GPU computed", "9%"), ("waited for images", "2%"),
    ]  # fmt: skip
    assert shown.top == "gave the GPU its work"


def test_the_share_of_the_peak_counts_the_size_of_each_epoch_and_says_nothing_of_frozen_layers(tmp_path: Path) -> None:
    row = {**BEFORE, "data_wait": 0.02, "step_share": 0.9, "gpu_busy": 0.09, "gpu_memory": 3 << 30}

    def peak(**recipe: Any) -> str | None:
        made = replace(plan(tmp_path, "run", **recipe), flops=4.1e12)
        return dict(costs(made, [row, row], "machine", "NVIDIA H200")).get("of the GPU's peak")

    whole = 3 * 4.1e12 * 30 / 989e12
    assert peak() == f"{whole:.1%} (bf16)"
    assert peak(img_size=(16, 32)) == f"{whole * (0.25 + 1) / 2:.1%} (bf16)"
    assert peak(freeze_until="head") is None


@pytest.mark.parametrize(
    ("data_wait", "step_share", "busy", "top", "words"),
    [
        (0.5, 0.4, 0.3, "waited for images", "Images bounded the training: the process waited for images 50%"),
        (0.01, 0.9, 0.95, "the GPU computed", "The GPU bounded the training: it was busy 95%"),
        # The process waits for images that are needed later: the GPU has work.
        (0.6, 0.1, 0.97, "the GPU computed", "The GPU bounded the training: it was busy 97%"),
        (0.02, 0.61, 0.35, "gave the GPU its work", "The GPU was busy 35% of the time: giving it its work bounded"),
        (0.2, 0.2, 0.6, "", "Nothing bounded the training alone: the GPU was busy 60%"),
        (0.4, 0.5, None, "", "The GPU's driver does not say"),
    ],
)
def test_what_bounded_a_training_on_a_gpu(
    data_wait: float, step_share: float, busy: float | None, top: str, words: str
) -> None:
    costs = StepCosts(data_wait=data_wait, step_share=step_share, gpu_busy=busy, gpu_memory=1 << 30)
    assert costs.bound(60.0)[0] == top
    assert costs.bound(60.0)[1].startswith(words)
    assert "--compile" not in costs.bound(60.0, compiled=True)[1]
    assert costs.bound(1.0)[0] == ""


def test_what_bounded_a_training_on_a_cpu() -> None:
    computed = StepCosts(data_wait=0.004, step_share=0.96, gpu_busy=None, gpu_memory=None)
    assert computed.bound(60.0)[0] == "computed"
    assert str(computed) == "training waited for images <1% of the time, computed 96%"
    waited = replace(computed, data_wait=0.3, step_share=0.6)
    assert waited.bound(60.0)[1].startswith("Images bounded the training: it waited for them 30% of the time.")


def test_the_summary_has_them_in_json_and_in_a_line() -> None:
    assert "training waited" not in str(summary())
    found = summary(data_wait=0.02, step_share=0.61, gpu_busy=0.35, gpu_memory=1 << 30)
    told = "training waited for images 2% of the time, gave the GPU its work 61%, the GPU was busy 35%"
    assert f"\n  {told}\n" in str(found)
    assert found.as_dict()["gpu_busy"] == 0.35
    assert "training waited" not in str(replace(found, up_to_date=True))


def test_a_meter_looks_until_it_is_closed_and_outlives_a_driver_that_does_not_answer() -> None:
    seen, enough = iter([GpuReading(0.2, 7), GpuReading(0.6, 5)]), threading.Event()

    def read() -> GpuReading:
        found = next(seen, None)
        if found is None:
            enough.set()
            raise RuntimeError("the driver is gone")
        return found

    meter = GpuMeter(read, every=0.001)
    with meter.looking():
        assert enough.wait(30)
    assert meter.seen.memory == 7
    assert meter.taken().busy == pytest.approx(0.4)
    assert meter.taken().busy is None
    assert gpu_meter.driver_reader("GPU-00000000-0000-0000-0000-000000000000") is None
    with GpuMeter(None).looking():
        pass
