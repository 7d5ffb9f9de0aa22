"""What is said while a training works: every phase by its name, the step that it is at, and never anything stale."""

from __future__ import annotations

import os
import pickle
import pty
import re
import subprocess
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import CLI, environment
from training import SIDE, folder, plan

import cvjobs
from cvjobs.common import progress
from cvjobs.common.errors import StoreUnreachable
from cvjobs.training.loop import loop as looping
from cvjobs.training.loop import ray_train
from cvjobs.training.loop.board import FolderBoard
from cvjobs.training.loop.loop import Loop, State
from cvjobs.training.loop.process_group import Alone
from cvjobs.training.training_summary import TrainingSummary

pytestmark = pytest.mark.slow

OPTIONS: dict[str, Any] = {"model": "small/cnn", "recipe": "quick", "img_size": str(SIDE), "batch_size": 4}
WORDS = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]


def states(place: Path, **settings: Any) -> list[State]:
    """Return all that a training reports."""
    told: list[State] = []
    made = plan(place, "run", **{"images": 40, "batch": 4, **settings})
    Loop(made, Alone(torch.device("cpu")), lambda _: False, print, report=told.append).run()
    return told


def test_every_step_and_phase_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looping, "TOLD", 0.0)
    told = states(tmp_path)
    for epoch in (1, 2):
        phases = list(dict.fromkeys(state.phase for state in told if state.epoch == epoch))
        assert phases == [*(["the first step"] if epoch == 1 else []), "", "validating 31 images", "saving"]
        assert [state.done for state in told if state.epoch == epoch and not state.phase][-10:] == list(range(1, 11))
    assert {(state.epochs, state.total) for state in told} == {(2, 10)}
    # A loss is known where it was looked at anyway: nothing is asked of the device for what is shown.
    assert [state.loss is None for state in told if state.epoch == 1][:8] == [True] * 8
    assert told[-1].loss is not None
    assert told[-1].metric is not None


def test_a_report_between_two_looks_comes_at_most_so_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looping, "TOLD", 3600.0)
    told = [state for state in states(tmp_path, epochs=1) if not state.phase]
    assert len(told) <= 3  # the looks after 8 and 10 steps


def test_the_time_left_is_that_of_the_steps_and_what_lies_between_them() -> None:
    pace = looping.StepPace()
    assert pace.left(10) is None
    pace.stepped(at=100.0)  # the first one takes longer, and says nothing
    pace.stepped(at=100.9)
    assert pace.left(10, now=100.9) is None
    pace.stepped(at=104.0)
    assert pace.left(10, now=104.0) == 20.0
    assert pace.left(10, now=106.0) == 30.0  # while the images of an epoch are validated, too


def test_the_notes_of_a_worker_have_each_phase_at_once(tmp_path: Path) -> None:
    board = FolderBoard(tmp_path, "run")
    notes = ray_train.Reporter(board, 0, lambda: None)
    begun = State(epoch=1, epochs=2, done=0, total=4, loss=None, metric=None, rate=0.0, phase="the first step")
    for state in (begun, State(**{**asdict(begun), "done": 4, "phase": "saving"})):
        notes.report(state)
        assert ray_train.read(board) == state


def test_why_workers_failed_that_reached_no_store_is_the_stores_sentence() -> None:
    from ray.train.v2.api.exceptions import WorkerGroupError

    silent = StoreUnreachable("s3://bucket/run cannot be reached (no answer)")
    of_ray = WorkerGroupError("of many lines", {0: RuntimeError("connection closed"), 1: silent})
    assert ray_train.unreached(pickle.loads(pickle.dumps(of_ray))).args == silent.args  # type: ignore[union-attr]
    assert ray_train.unreached(WorkerGroupError("of many lines", {0: RuntimeError("died")})) is None
    assert ray_train.unreached(ValueError()) is None


def test_lines_elsewhere_name_the_phases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.001)
    monkeypatch.setattr(looping, "TOLD", 0.0)
    found = cvjobs.train(folder(tmp_path / "images", 12), tmp_path / "run", **OPTIONS, epochs=2)
    assert isinstance(found, TrainingSummary)
    assert {"training", "page"} <= set(found.phases)
    assert sum(found.phases.values()) == pytest.approx(found.seconds, abs=0.01)
    assert "Where the time went" in (tmp_path / "run/report.html").read_text()
    assert "page " in str(found) or "the rest" in str(found)
    said = capfd.readouterr().err
    for what in (
        r"train: estimating the memory of a step",
        r"train: \d+/\d+ steps, epoch 1/2, the first step|train: starting small/cnn",
        r"train: \d+/\d+ steps, epoch 2/2, step \d+/\d+, loss \d\.\d{3}, best \d\.\d{3}",
        r"train: writing the report",
    ):
        assert re.search(what, said), (what, said)


@pytest.mark.faults(minutes=3)
def test_a_terminal_shows_something_from_the_first_second_on(tmp_path: Path) -> None:
    images = folder(tmp_path / "images", 40)
    ours, theirs = pty.openpty()
    words = [*CLI, "train", str(images), "-o", str(tmp_path / "run"), *WORDS, "--epochs", "3"]
    with subprocess.Popen(words, stderr=theirs, stdout=subprocess.DEVNULL, env=environment(TERM="xterm")) as process:
        os.close(theirs)
        moments, shown = [time.monotonic()], b""
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:  # closed by its other end
                break
            moments.append(time.monotonic())
            shown += block
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    for what in ("importing", "listing", "the first step", "epoch 3/3, step"):
        assert what in text
    # A stopwatch that is generous with a loaded machine: there are no stretches of silence.
    assert max(later - earlier for earlier, later in pairwise(moments[1:])) < 10
    assert process.returncode == 0
