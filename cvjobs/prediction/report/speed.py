"""Images a second over the time of a run, as few points however long it takes."""

from __future__ import annotations

import time
from itertools import pairwise

from cvjobs.common.rates import LEAST

SAMPLES = 120
POINTS = 32  # wide enough spans that a batch does not show as a peak


class Speed:
    """Samples how many images have an answer; old samples are thinned out, so that they stay evenly spread."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []
        self._apart = 0.25

    def sample(self, answered: int) -> None:
        """Note how many images have an answer by now; cheap to call often."""
        now = time.monotonic()
        if self._samples and now - self._samples[-1][0] < self._apart:
            return
        self._samples.append((now, answered))
        if len(self._samples) > SAMPLES:
            self._samples = self._samples[::2]
            self._apart *= 2

    def rates(self) -> list[tuple[float, float]]:
        """Return (s since the first sample, images a second) in the middle of each of at most ``POINTS`` spans.

        A span is a second at least, as ``rates`` asks.
        """
        step = max(-(-len(self._samples) // POINTS), round(LEAST / self._apart), 1)
        ends = self._samples[::step]
        start = self._samples[0][0] if self._samples else 0.0
        return [((a + b) / 2 - start, (m - n) / (b - a)) for (a, n), (b, m) in pairwise(ends) if b > a]
