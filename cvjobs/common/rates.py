"""How fast something goes, by the one definition that terminals, JSON and pages share; 0 where it cannot be said.

A rate is what was answered after the first batch, divided by the time from that batch to the last one. It needs a
second of time and two batches: the first batch also shows how long getting ready took, and fewer say nothing.
"""

from __future__ import annotations

import time

from cvjobs.common.formatting import count, counted, duration

LEAST = 1.0  # s
BATCHES = 2


def rate(done: float, seconds: float, batches: int) -> float:
    """Return how many a second ``done`` in so many seconds are, 0.0 where that is too little time or too few batches.

    ``batches`` is how many were answered, with the first one, which ``done`` and ``seconds`` may leave out.
    """
    return done / seconds if done > 0 and seconds >= LEAST and batches >= BATCHES else 0.0


def left(remaining: float, done: float, seconds: float, batches: int) -> float | None:
    """Return the seconds that what remains takes at that rate, None where there is none; arguments as of ``rate``."""
    pace = rate(done, seconds, batches)
    return remaining / pace if pace else None


def rounded(rate: float) -> float:
    """Return a rate for a record: tenths, of a slow one ten-thousandths."""
    return round(rate, 1 if rate >= 10 else 4)


def told(rate: float, things: str = "img") -> str:
    """Return a rate as a terminal shows it: 1,310 img/s, 4.2 img/s, 2.3 s/img; empty where there is none."""
    if not rate:
        return ""
    if rate < 1:
        return f"{duration(1 / rate)}/{counted(1, things).removeprefix('1 ')}"
    return f"{rate:,.0f} {things}/s" if rate >= 10 else f"{rate:.1f} {things}/s"


def shown(rate: float) -> str:
    """Return a rate as a page shows it below its unit: 1,310, 0.43, or a dash where there is none."""
    return count(rounded(rate)) if rate else "–"


class Meter:
    """Measures how fast batches are answered, each as it is told."""

    def __init__(self) -> None:
        self._begun = self._last = 0.0
        self._first = self._done = self._batches = 0

    def answered(self, done: int) -> None:
        """Note that another batch was answered, and that so many are done with it."""
        self._last = time.monotonic()
        if not self._batches:
            self._begun, self._first = self._last, done
        self._done = done
        self._batches += 1

    @property
    def rate(self) -> float:
        """How many a second were answered until the last batch."""
        return rate(self._done - self._first, self._last - self._begun, self._batches)

    def left(self, total: int) -> float | None:
        """Return the seconds until ``total`` are done, by what was done until now; None where nothing tells."""
        seconds = time.monotonic() - self._begun
        return left(total - self._done, self._done - self._first, seconds, self._batches)
