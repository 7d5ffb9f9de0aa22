"""What this machine has to compute with, as its variables say."""

from __future__ import annotations

import pytest

from cvjobs.common import devices


@pytest.mark.parametrize("told", [None, "", "0", "-1", "many", "9" * 20, "1.5", "\u0663", "5000", "nan"])
def test_what_is_no_number_of_threads_is_not_obeyed(told: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert devices.told_threads() is None
    assert devices.threads() == devices.cpus()


@pytest.mark.parametrize(("told", "number"), [("1", 1), (" 3 ", 3), ("4,2", 4), ("64", 64)])
def test_a_number_of_threads_is(told: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert devices.threads() == number
