"""The images a second that a training says: none of an epoch that takes less than a second."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training import plan, summary

from cvjobs.training import artifacts, conclusion
from cvjobs.training.loop import loop
from cvjobs.training.loop.process_group import Alone
from cvjobs.training.plan import HISTORY
from cvjobs.training.report.training_cost import costs


@pytest.mark.parametrize(("step", "expected"), [(0.05, 0.0), (2.0, 8.0)])
def test_an_epoch_of_less_than_a_second_has_no_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float, expected: float
) -> None:
    clock = [100.0]
    monkeypatch.setattr("cvjobs.training.loop.loop.time.monotonic", lambda: clock[0])
    made = plan(tmp_path, "run", images=32, epochs=2)
    seen: list[float] = []

    def watch(state: loop.State) -> bool:
        clock[0] += step * 32 / made.batch
        seen.append(state.rate)
        return False

    loop.Loop(made, Alone(torch.device("cpu")), watch, lambda _: None).run()
    rows = artifacts.rows(made.store(), HISTORY).to_pylist()
    assert [row["images_per_second"] for row in rows] == [pytest.approx(expected * made.batch / 16)] * 2
    assert seen == [0.0, 0.0], "the clock of this test stands still during an epoch"


def test_many_short_epochs_have_the_rate_of_all_of_them(tmp_path: Path) -> None:
    made = plan(tmp_path, "run", images=32)
    row = {"images_per_second": 0.0, "seconds": 0.4, "workers": 1}
    assert conclusion._speed(made, [row, row]) == 0.0
    assert conclusion._speed(made, [row] * 5) == pytest.approx(len(made.train) * 5 / 2.0)
    assert dict(costs(made, [row, row], "machine"))["on average"] == "–"
    assert dict(costs(made, [row] * 5, "machine"))["on average"].endswith(" img/s")


def test_a_slow_training_is_not_said_to_stand_still() -> None:
    assert "\n49.8 s, 2.5 s/img\n" in str(summary(seconds=49.8, images_per_second=0.4))
    assert "\n49.8 s\n" in str(summary(seconds=49.8, images_per_second=0.0))
