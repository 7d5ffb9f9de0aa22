"""What no run of the tests may do: wait for ever, or, where CI is set, skip a test that is not in ``skips.txt``."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

LISTED = Path(__file__).parent / "skips.txt"
FAULT_SECONDS = 1800  # of a test that is marked faults; the others have pyproject.toml's timeout


class Limits:
    """A plugin that gives long tests a longer timeout, and fails a run of CI with skips that are not listed."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._allowed = listed(LISTED.read_text())
        self._others: list[str] = []

    @pytest.hookimpl
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if item.get_closest_marker("faults") and not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(FAULT_SECONDS))

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        name = report.nodeid.removesuffix("@ray")  # the group that conftest.py gives it
        if not any(fnmatchcase(name, test) and fnmatchcase(reason, why) for test, why in self._allowed):
            self._others.append(f"{report.nodeid}: {reason}")

    @pytest.hookimpl
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        # A process of pytest-xdist reports to the one that was started, which ends the run.
        if self._strict and self._others and not hasattr(session.config, "workerinput"):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._strict and self._others:
            terminalreporter.section(f"skipped, and not in {LISTED.name}", red=True)
            for line in self._others:
                terminalreporter.line(line)


def listed(text: str) -> list[tuple[str, str]]:
    """Return the patterns of a test's id and of the reason for each line ``TEST: REASON``; ``#`` begins a comment."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(test, reason) for test, _, reason in (line.partition(": ") for line in lines)]
