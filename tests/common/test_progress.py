"""What a command shows while it works, and how long its phases took."""

from __future__ import annotations

import io
import sys
import threading
import time

import pytest

from cvjobs.common import phases, progress
from cvjobs.common.phases import IMPORTING, Phases
from cvjobs.common.progress import Progress, during


def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that is set by hand."""
    clock = [100.0]
    monkeypatch.setattr("cvjobs.common.phases.time.monotonic", lambda: clock[0])
    return clock


def test_phases_add_up_to_the_time_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = seconds(monkeypatch)
    phases.begin()
    clock[0] = 101.234
    now = Phases()
    for name, until in (("listing", 103.001), ("importing", 104.119), ("quick", 104.1191), ("computing", 109.0)):
        now.begin(name)
        clock[0] = until
    spent = now.spent()
    assert spent == {"importing": 2.35, "listing": 1.77, "computing": 4.88}, "both imports are one"
    assert list(spent) == ["importing", "listing", "computing"]
    assert phases.whole(spent) == 9.0
    assert Phases().seconds == 0.0, "the process began with the command before"


def test_a_phase_may_begin_when_something_was_seen_later(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = seconds(monkeypatch)
    now = Phases()
    clock[0] = 102.0
    now.begin("computing")
    clock[0] = 105.0
    now.begin("writing", at=104.5)
    now.begin("page", at=103.0)
    assert now.spent() == {IMPORTING: 2.0, "computing": 2.5, "page": 0.5}


def test_where_the_time_went_is_a_line() -> None:
    spent = {"importing": 6.5, "listing": 0.02, "loading the model": 2.0, "computing": 1.0, "page": 0.3}
    assert phases.told(spent) == "importing 6.5 s, loading the model 2.0 s, computing 1.0 s, the rest 0.32 s"
    assert phases.told({"importing": 0.9, "writing": 0.01}) == "importing 0.9 s"


def test_a_line_comes_also_while_a_command_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.01)
    lines = ""

    def until(words: str) -> None:
        nonlocal lines
        for _ in range(1000):
            lines += capsys.readouterr().err
            if words in lines:
                return
            time.sleep(0.01)
        raise AssertionError(lines)

    with Progress("embed") as shown:
        until("embed: importing\n")
        shown.phase("listing", "listing pho\x1btos")
        until("embed: listing pho\\x1btos\n")
        shown.phase("computing")
        until("embed: computing\n")
        shown.update(16, 1000, 0, 0.0)
        until("embed: 16/1,000 images, 0 failed\n")
        shown.update(600, 1000, 2, 20.0, 20.4)
        until("embed: 600/1,000 images, 20 img/s, 2 failed, 0:20 left\n")
        shown.phase("writing")
        until("embed: writing\n")


def test_a_progress_within_another_is_that_one() -> None:
    with Progress("query") as outer:
        outer.phase("listing")
        with Progress("query") as inner, during("importing"):
            assert inner is outer
            assert outer.phases.name == "importing"
        assert outer.phases.name == "listing"
        seen: list[str] = []

        def helper() -> None:
            with during("helping"):
                seen.append(outer.phases.name)

        thread = threading.Thread(target=helper)
        thread.start()
        thread.join()
        assert seen == ["listing"], "a thread that helps begins no phase"
    with Progress("query") as later:
        assert later is not outer


class Terminal(io.StringIO):
    """A terminal that keeps what it is told."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_phase_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with Progress("detect") as shown:
        assert "detect importing" in screen.getvalue()
        shown.phase("computing")
        shown.update(16, 1000, 0, 0.0)
        shown.note("something that stays")
    assert "16/1,000" in screen.getvalue()
    assert "detect: something that stays\n" in screen.getvalue()
    assert "left" not in screen.getvalue()
    assert "img/s" not in screen.getvalue()
