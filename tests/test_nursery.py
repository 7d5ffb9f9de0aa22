"""The decoder server that a command leaves to the next of the same Python: taken again, and never in a bad state."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator

import psutil
import pytest
from commands import TESTS, until

from cvjobs.decoding import server_process
from cvjobs.decoding.lanes import Nursery
from cvjobs.decoding.server_process import SHELF
from cvjobs.decoding.wire import Recipe
from cvjobs.errors import JobFailed
from cvjobs.records import Transform, facts

RECIPE = Recipe(decoder="cvjobs.images:decode", transform=facts(Transform(size=(4, 4), fit="exact")), max_pixels=1000)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    SHELF.clear()
    yield
    SHELF.clear()


def used() -> Nursery:
    """A nursery of which one child was forked and has ended."""
    nursery = Nursery()
    nursery.fork(RECIPE).close()
    return nursery


def pid(nursery: Nursery) -> int:
    assert nursery._server is not None
    return nursery._server.process.pid


def test_the_next_command_takes_the_server_of_the_last() -> None:
    first = used()
    first.close()
    assert SHELF.kept == pid(first)
    second = used()
    assert pid(second) == pid(first)
    assert SHELF.kept is None
    other = Nursery()  # of a command at the same time
    other.start()
    assert pid(other) != pid(second)
    second.close()
    other.close()
    assert SHELF.kept == pid(second)
    assert not psutil.pid_exists(pid(other))


def test_a_server_is_not_kept_while_a_child_lives_or_a_lane_waits_for_one() -> None:
    nursery = Nursery()
    child = nursery.fork(RECIPE)
    nursery.close()
    assert SHELF.kept is None
    until(lambda: not psutil.pid_exists(child.pid), 10)  # with its parent
    child.close()
    with pytest.raises(JobFailed, match="they were ended"):
        nursery.fork(RECIPE)
    waiting = Nursery()
    waiting.start()
    with waiting._lock:
        waiting.close()
    assert SHELF.kept is None
    assert not psutil.pid_exists(pid(waiting))


@pytest.mark.slow
def test_a_server_that_died_or_finds_other_modules_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    first = used()
    first.close()
    os.kill(pid(first), signal.SIGKILL)
    second = used()
    assert pid(second) != pid(first)
    second.close()
    monkeypatch.syspath_prepend(str(TESTS / "toys"))
    third = used()
    assert pid(third) != pid(second)
    assert not psutil.pid_exists(pid(second))
    third.close()


def test_a_fork_of_this_python_leaves_the_server_alone() -> None:
    first = Nursery()
    first.start()
    first.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        child = os.fork()
    if child == 0:
        SHELF.clear()
        os._exit(0 if SHELF.take() is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert SHELF.kept == pid(first)
    assert psutil.pid_exists(pid(first))


def test_an_idle_server_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_process, "LINGER", 0.01)
    first = Nursery()
    first.start()
    first.close()
    until(lambda: not psutil.pid_exists(pid(first)), 60)
    assert SHELF.kept is None
