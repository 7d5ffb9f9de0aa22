"""Every write, fsync, rename, link and unlink of the dataset layer fails once: killed, EIO, ENOSPC."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, TESTS
from toy import Run, Toy, killed

pytestmark = pytest.mark.slow

MODES = pytest.mark.parametrize("mode", ["kill", "eio", "enospc"])


def sweep(made: Toy, step: int, mode: str, **options: bool) -> int:
    """Fail call 1, 1 + step, ... of a run; return how many there are."""
    out = made.out.parent / "swept"
    arguments = [made.source, made.out, out, step, mode, json.dumps(options)]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(TESTS / "faulty.py"), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(TESTS)])},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return int(done.stdout)


@pytest.fixture
def fresh(tmp_path: Path) -> Toy:
    """Six images and no output yet."""
    made = Toy(tmp_path / "source", tmp_path / "seed", every=2)
    for i in range(5):
        made.put(f"{i}.jpg", f"image {i}")
    made.put("bad.jpg", "BAD")
    return made


@pytest.fixture
def nightly(fresh: Toy) -> Toy:
    """An output of yesterday, changes since, and a run that was killed half way."""
    for i in range(5, 12):
        fresh.put(f"{i}.jpg", f"image {i}")
    fresh.run()
    for i in range(5):
        fresh.put(f"{i}.jpg", f"changed {i}")
    (fresh.source / "5.jpg").unlink()
    fresh.put("bad.jpg", "good")
    fresh.put("6.jpg", "BAD")
    killed(Run(fresh), 1)
    return fresh


@pytest.mark.parametrize("mode", ["kill", "enospc"])
def test_some_calls_of_a_first_run_fail(fresh: Toy, mode: str) -> None:
    assert sweep(fresh, 11, mode) > 40


@pytest.mark.parametrize("mode", ["kill", "eio"])
def test_some_calls_of_a_nightly_run_fail(nightly: Toy, mode: str) -> None:
    assert sweep(nightly, 17, mode) > 60


@pytest.mark.faults
@MODES
def test_every_call_of_a_first_run_fails(fresh: Toy, mode: str) -> None:
    assert sweep(fresh, 1, mode) > 40


@pytest.mark.faults
@MODES
def test_every_call_of_a_nightly_run_fails(nightly: Toy, mode: str) -> None:
    assert sweep(nightly, 1, mode) > 60


@pytest.mark.faults
@MODES
def test_every_call_of_an_overwrite_fails(nightly: Toy, mode: str) -> None:
    assert sweep(nightly, 1, mode, overwrite=True) > 60
