"""The decoder server that a command leaves to the next of the same Python: taken again, and never in a bad state."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator

import psutil
import pytest
from commands import TESTS, until

from cvjobs.common.errors import JobFailed
from cvjobs.images import server_process
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.ipc import DecodeSettings
from cvjobs.images.server_process import SHELF
from cvjobs.images.transform import Transform

SETTINGS = DecodeSettings(
    decoder="cvjobs.images.decode:decode", transform=Transform(size=(4, 4), fit="exact").record(), max_pixels=1000
)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    SHELF.clear()
    yield
    SHELF.clear()


def used() -> DecoderServer:
    """A decoder_server of which one child was forked and has ended."""
    decoder_server = DecoderServer()
    decoder_server.fork(SETTINGS).close()
    return decoder_server


def pid(decoder_server: DecoderServer) -> int:
    assert decoder_server._server is not None
    return decoder_server._server.process.pid


@pytest.mark.slow
def test_the_next_command_takes_the_server_of_the_last() -> None:
    first = used()
    first.close()
    assert SHELF.kept == pid(first)
    second = used()
    assert pid(second) == pid(first)
    assert not SHELF.kept
    other = DecoderServer()  # of a command at the same time
    other.start()
    assert pid(other) != pid(second)
    second.close()
    other.close()
    assert SHELF.kept == pid(second)
    assert not psutil.pid_exists(pid(other))


@pytest.mark.faults(minutes=0.2)
def test_a_server_is_not_kept_while_a_child_lives_or_a_decoder_waits_for_one() -> None:
    decoder_server = DecoderServer()
    child = decoder_server.fork(SETTINGS)
    decoder_server.close()
    assert SHELF.kept is None
    until(lambda: not psutil.pid_exists(child.pid), 10)  # with its parent
    child.close()
    with pytest.raises(JobFailed, match="they were ended"):
        decoder_server.fork(SETTINGS)
    waiting = DecoderServer()
    waiting.start()
    with waiting._lock:
        waiting.close()
    assert SHELF.kept is None
    assert not psutil.pid_exists(pid(waiting))


@pytest.mark.faults(minutes=0.2)
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
    first = DecoderServer()
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
    first = DecoderServer()
    first.start()
    first.close()
    until(lambda: not psutil.pid_exists(pid(first)), 60)
    assert SHELF.kept is None
