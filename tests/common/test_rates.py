"""How fast something goes: by one definition, and not at all where a second or two batches are lacking."""

from __future__ import annotations

import pytest

from cvjobs.common import rates
from cvjobs.prediction.engine.throughput import Pace, overall


@pytest.mark.parametrize(
    ("done", "seconds", "batches", "expected"),
    [
        (22, 0.0007, 3, 0.0),
        (16, 0.99, 5, 0.0),
        (4000, 30.0, 1, 0.0),
        (0, 49.8, 9, 0.0),
        (6, 1.0, 2, 6.0),
        (3, 49.8, 3, 3 / 49.8),
    ],
)
def test_a_rate_needs_a_second_and_two_batches(done: int, seconds: float, batches: int, expected: float) -> None:
    assert rates.rate(done, seconds, batches) == expected
    assert rates.left(2 * done, done, seconds, batches) == (pytest.approx(2 * seconds) if expected else None)


def test_the_time_left_goes_down_with_the_clock_until_a_batch_is_late() -> None:
    waited = [rates.left(60, 30, 30.0, 4, second) for second in (0.0, 5.0, 20.0, 21.0, 50.0)]
    assert waited == [60.0, 55.0, 40.0, 42.0, 100.0], "a batch takes 10 s, and twice as long is late"
    assert rates.left(3, 30, 30.0, 4, 2.0) == 1.0
    assert rates.left(3, 30, 30.0, 4, 4.0) is None, "it should have ended: nobody knows when"


@pytest.mark.parametrize(
    ("rate", "terminal", "page", "record"),
    [
        (1309.96, "1,310 img/s", "1,310", 1310.0),
        (57.04, "57 img/s", "57", 57.0),
        (9.96, "10.0 img/s", "9.96", 9.96),
        (4.2, "4.2 img/s", "4.2", 4.2),
        (0.43, "2.3 s/img", "0.43", 0.43),
        (0.0123456, "81 s/img", "0.0123", 0.0123),
        (0.0, "", "–", 0.0),
    ],
)
def test_a_slow_rate_is_not_said_to_be_nothing(rate: float, terminal: str, page: str, record: float) -> None:
    assert rates.told(rate) == terminal
    assert rates.shown(rate) == page
    assert rates.rounded(rate) == record


def test_queries_and_images_are_told_alike() -> None:
    assert rates.told(12.4, "queries") == "12 queries/s"
    assert rates.told(0.5, "queries") == "2.0 s/query"


def test_a_meter_counts_what_came_after_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("cvjobs.common.rates.time.monotonic", lambda: clock[0])
    meter = rates.Meter()
    seen = []
    for second, done in ((20.0, 8), (20.001, 16), (20.5, 24), (22.0, 40)):
        clock[0] = 100.0 + second
        meter.answered(done)
        seen.append(meter.rate)
    assert seen == [0.0, 0.0, 0.0, pytest.approx(16.0)]
    assert meter.left(56) == pytest.approx(1.0)
    clock[0] += 0.25
    assert meter.left(56) == pytest.approx(0.75)


def pace(answered: int, batches: int, seconds: float, failed: int = 0) -> Pace:
    """What an engine of two model threads says whose batches are of 8, the first two of them answered at 100 s."""
    return Pace(
        answered=answered,
        batches=batches,
        begun=95.0,
        first=100.0,
        first_count=min(answered, 16),
        last=100.0 + seconds,
        lanes=2,
        failed=failed,
    )


def test_the_first_batch_of_each_model_thread_is_no_rate() -> None:
    """Two threads that answer their first batches together would be as fast as the microseconds between them."""
    assert pace(16, 2, 0.0006).rate == 0.0
    assert pace(22, 3, 1.6).rate == 0.0, "only one of the threads has answered twice"
    assert pace(32, 4, 1.6).rate == pytest.approx(10.0), "and both are as fast as two batches in 1.6 s"


def test_the_time_left_is_by_what_the_model_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvjobs.prediction.engine.throughput.time.time", lambda: 102.5)
    assert pace(16, 2, 0.001).left(984) is None
    bad = pace(516, 4, 2.0, failed=484)  # were not decoded, at thousands a second
    assert bad.rate == 8.0
    assert bad.left(100) == 12.0, "12.5 s from the last answer on"


def test_several_engines_are_as_fast_as_all_of_them() -> None:
    together = overall([pace(48, 6, 4.0), pace(48, 6, 4.0), Pace(lanes=2)])
    assert together.rate == 16.0
    assert overall([]).rate == 0.0
