"""Nights whose records are damaged: named by `cvjobs verify` and the next command, and never continued by mistake."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from commands import here
from flips import Tally, flipped, flips, said

import cvjobs
from cvjobs.dataset.sealed import SEAL
from cvjobs.operations.nightly import pipeline_file, record
from cvjobs.operations.nightly.record import Night, Status, StepRecord, Try
from cvjobs.storage.local_store import LocalStore

NIGHTLY = "name: nightly\nstate: state\nsteps: [{doctor: {}}]\n"


def kept(root: Path, *statuses: Status) -> LocalStore:
    """Return a state folder with nights of a pipeline that ended so just now, the oldest first."""
    file = root / "nightly.yaml"
    file.write_text(NIGHTLY)
    pipeline, store, now = pipeline_file.read(str(file)), LocalStore(root / "state"), time.time()
    for number, status in enumerate(statuses, start=1):
        (step,) = pipeline.steps
        work = StepRecord(name=step.name, command=step.command, line=step.line, digest=step.digest, status=status)
        work.summary = {"zebras": 2, "apes": number}
        tries = [Try(began=now, ended=now, status=status)]
        record.keep(store, Night(pipeline="nightly", number=number, status=status, steps=[work], tries=tries))
    return store


def test_nights_are_exact_and_a_damaged_one_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = kept(tmp_path, "done", "failed", "done")
    ended = here("verify", store.place)
    assert (ended.code, ended.out) == (0, f"the nights of a pipeline: 3 nights checked\n{store.place} is exact\n")
    assert list(record.load(store)[0].steps[0].summary) == ["zebras", "apes"]  # as the command told it
    file = tmp_path / "state" / record.file_of(3)
    file.write_bytes(file.read_bytes().replace(b'"apes": 3', b'"apes": 2'))
    (problem,) = cvjobs.verify(store.place).problems
    assert problem == (
        "nights/0003/night.json is gone or damaged: delete nights/0003; "
        "the next night begins anew, and its steps do what is left"
    )
    assert [night.number for night in record.load(store)] == [1, 2]
    assert "state/nights/0003/night.json is damaged: that night is left out" in capsys.readouterr().err
    # The one before failed just now, and is over all the same.
    pipeline = pipeline_file.read(str(tmp_path / "nightly.yaml"))
    assert record.tonight(store, pipeline, record.load(store)).number == 4
    assert json.loads(here("run", tmp_path / "nightly.yaml", "--dry-run", "--json").out)["night"] == 4


def test_a_kill_before_the_first_record_of_a_night_is_no_damage(tmp_path: Path) -> None:
    store = kept(tmp_path, "done")
    (tmp_path / "state/nights/0002").mkdir()
    (tmp_path / "state/nights/0002/.tmp-reader-0").write_text("{")
    assert cvjobs.verify(store.place).problems == ()


def test_nights_of_earlier_versions_are_read_and_continued(tmp_path: Path) -> None:
    store = kept(tmp_path, "done", "failed")
    before = record.load(store)
    for number in (1, 2):
        file = tmp_path / "state" / record.file_of(number)
        content = json.loads(file.read_bytes())
        del content[SEAL]
        file.write_text(json.dumps(content, indent=1) + "\n")
    assert record.load(store) == before
    assert cvjobs.verify(store.place).exit_code == 0
    pipeline = pipeline_file.read(str(tmp_path / "nightly.yaml"))
    assert record.tonight(store, pipeline, record.load(store)).number == 2


def test_no_flipped_bit_of_a_night_is_missed(tmp_path: Path) -> None:
    store, tally = kept(tmp_path, "done", "failed"), Tally()
    place = Path(store.place)
    before = record.load(store)

    def tonight() -> Any:
        return here("run", tmp_path / "nightly.yaml", "--dry-run").code

    for number, flip in enumerate(flips(place, 60, 0, besides=("lease",))):
        with flipped(flip):
            tally.count(flip, place, lambda: record.load(store), before)
            assert number % 20 or said(tonight) == 0
    assert tally.wrong == tally.passed == []
