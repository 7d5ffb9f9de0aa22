"""The limits of a run of the tests: a skip that is not listed fails it where CI is set, in one process and in two."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from limits import LISTED, listed

TESTS = Path(__file__).parent
CONFTEST = """
import os, pytest, limits

def pytest_configure(config):
    config.pluginmanager.register(limits.Limits(strict="CI" in os.environ))
"""
SUITE = """
import time, pytest

def test_passes():
    pass

def test_on_a_gpu_they_move_there_where_there_is_room():
    pytest.skip("needs CUDA")

def test_of_another_reason():
    pytest.skip(REASON)

@pytest.mark.xfail
def test_that_is_known_to_fail():
    raise ValueError
"""


def ended(folder: Path, *words: str, reason: str = "no time", **variables: str) -> subprocess.CompletedProcess[str]:
    """How a suite with a skip for a reason ends."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_suite.py").write_text(SUITE.replace("REASON", repr(reason)))
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
        env={**environment, "PYTHONPATH": str(TESTS), **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("-n", "2")])
def test_another_skip_fails_a_run_of_ci(tmp_path: Path, words: tuple[str, ...]) -> None:
    run = ended(tmp_path, *words, CI="true")
    assert run.returncode == 1, run
    (named,) = re.findall(r"^\S+::(\w+): no time$", run.stdout, re.MULTILINE)
    assert named == "test_of_another_reason"
    assert "1 passed, 2 skipped, 1 xfailed" in run.stdout


@pytest.mark.slow
def test_a_listed_skip_fails_none_and_neither_does_any_outside_ci(tmp_path: Path) -> None:
    assert ended(tmp_path, reason="the 25 minutes are over", CI="true").returncode == 0
    assert ended(tmp_path).returncode == 0


@pytest.mark.slow
def test_a_long_test_has_longer(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    marked = "import pytest, time\npytestmark = pytest.mark.faults\n"
    body = "def test_waits(request):\n    assert request.node.get_closest_marker('timeout').args == (1800,)\n"
    (tmp_path / "test_marked.py").write_text(marked + body)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_marked.py"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "PYTEST_ADDOPTS": ""}
    run = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run


def test_every_listed_test_is_there() -> None:
    every = "".join(path.read_text() for path in TESTS.rglob("test_*.py"))
    for test, reason in listed(LISTED.read_text()):
        assert reason
        assert test == "*" or f"def {test.removeprefix('*::').removesuffix('*')}(" in every, test
