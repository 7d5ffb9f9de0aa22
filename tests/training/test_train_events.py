"""TensorBoard's event files of a run: every epoch of its history once, whatever happened to the process."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from event_files import curves, expected, records
from training import copied, loop, plan

from cvjobs.common.errors import Stopped
from cvjobs.training.loop import loop as looping
from cvjobs.training.loop.loop import State
from cvjobs.training.plan import TrainPlan
from cvjobs.training.report import tensorboard

pytestmark = pytest.mark.slow


def broken_off(plan_: TrainPlan, looks: int, error: type[Exception]) -> None:
    """Train until so many looks at the loss; a Stopped is a request, anything else comes as a kill would."""
    seen = 0

    def watch(_: State) -> bool:
        nonlocal seen
        seen += 1
        if seen > looks and error is not Stopped:
            raise error
        return seen > looks

    with pytest.raises(error):
        loop(plan_, watch).run()


def test_every_epoch_is_a_point_of_every_curve_and_the_settings_are_a_text(tmp_path: Path) -> None:
    plan_ = plan(tmp_path, "run", epochs=3, tensorboard=True)
    loop(plan_).run()
    assert curves(plan_.run) == expected(plan_.run)
    assert [step for step, _ in curves(plan_.run)["lr"]] == [1, 2, 3]
    (text,) = [event for event in records(plan_.run) if any("settings" in v.tag for v in event.summary.value)]
    assert b"| epochs | 3 |" in text.SerializeToString()


@pytest.mark.parametrize("error", [Stopped, pytest.param(KeyError, marks=pytest.mark.faults)])
def test_a_run_that_was_broken_off_twice_has_each_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    monkeypatch.setattr(looping, "LOOK", 1)
    plan_ = plan(tmp_path, "run", epochs=4, tensorboard=True)
    broken_off(plan_, 6, error)  # within the second of four epochs of four steps
    broken_off(plan_, 5, error)
    before = {event.step: event.wall_time for event in records(plan_.run) if event.step}
    loop(plan_).run()
    assert curves(plan_.run) == expected(plan_.run)
    assert [step for step, _ in curves(plan_.run)["val/loss"]] == [1, 2, 3, 4]
    after = {event.step: event.wall_time for event in records(plan_.run) if event.step}
    assert list(after.values()) == sorted(after.values())
    assert len(before) < len(after)


def test_a_record_that_was_cut_and_an_epoch_without_a_checkpoint_are_gone(tmp_path: Path) -> None:
    plan_ = plan(tmp_path, "run", epochs=2, tensorboard=True)
    loop(plan_).run()
    history = pq.read_table(Path(plan_.run) / "history.parquet").to_pylist()
    (file,) = (Path(plan_.run) / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    (file.parent / "mine.txt").write_text("not ours")
    again = tensorboard.Events(plan_.store(), "top-1", {}, history[:1])
    again.add(history[1])
    again.close()
    (file.parent / "mine.txt").unlink()  # and is left alone
    assert curves(plan_.run) == expected(plan_.run)


def test_it_may_be_asked_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looping, "LOOK", 1)
    without = plan(tmp_path, "run", epochs=3)
    broken_off(without, 5, Stopped)
    assert not (Path(without.run) / "tensorboard").exists()
    loop(plan(tmp_path, "run", epochs=3, tensorboard=True)).run()
    assert curves(without.run) == expected(without.run)
    assert len(curves(without.run)["lr"]) == 3


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    plan_ = copied(plan(tmp_path, "one", tensorboard=True), "run")
    (Path(plan_.run) / "tensorboard").write_text("a file")
    with pytest.raises(Exception, match=r"Writing to .*tensorboard failed"):
        loop(plan_).run()
