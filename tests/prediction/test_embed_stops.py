"""What a stop of ``cvjobs embed`` leaves: an output at rest, which the same command completes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from commands import CLI, embed, exact, kill, opened, parts, rows, said, sentence, started, until

pytestmark = pytest.mark.slow


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.faults)])
def test_a_stop_in_the_middle(slow_photos: Path, out: Path, number: int) -> None:
    command = [*CLI, "embed", str(slow_photos), "-o", str(out), "--model", "thumbnail/4"]
    with started(command) as process:
        until(lambda: parts(out) or process.poll() is not None)
        kill(process, number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "cvjobs: Stopped" in err
    assert len(said(err)) == 1
    kept = rows(out).num_rows
    assert 0 < kept < 200
    assert opened(out).to_arrow().num_rows == kept
    found = json.loads(embed(slow_photos, out, "--json").out)
    assert (found["reused"], found["computed"]) == (kept, 200 - kept)
    exact(out, slow_photos, 200)


def test_a_stop_before_anything_was_computed(slow_photos: Path, out: Path) -> None:
    with started([*CLI, "embed", str(slow_photos), "-o", str(out), "--model", "thumbnail/4"]) as process:
        until((out / "_cvjobs/format.json").exists)
        kill(process, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert len(said(err)) == 1
    assert embed(slow_photos, out).code == 0
    exact(out, slow_photos, 200)


def test_a_second_writer_is_refused_and_one_that_stood_still_is_overtaken(slow_photos: Path, out: Path) -> None:
    with started([*CLI, "embed", str(slow_photos), "-o", str(out), "--model", "thumbnail/4"]) as process:
        until(lambda: parts(out) or process.poll() is not None)
        kill(process, signal.SIGSTOP)
        assert f"is held by process {process.pid} on " in sentence(embed(slow_photos, out), 5)
        for beat in out.glob("_cvjobs/lease/*.json"):
            record = json.loads(beat.read_text())
            beat.write_text(json.dumps({**record, "heartbeat": record["heartbeat"] - 3600}))
        assert embed(slow_photos, out).code == 0
        kill(process, signal.SIGCONT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 5, err
    assert len(said(err)) == 1
    assert rows(out).num_rows == 200
    assert embed(slow_photos, out).code == 0
    exact(out, slow_photos, 200)
