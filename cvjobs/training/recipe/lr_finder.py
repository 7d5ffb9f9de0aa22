"""The learning-rate finder: how a loss moves while the rate grows, and the rate at which it falls fastest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LOW, HIGH, STEPS = 1e-6, 1.0, 100
_SMOOTHING = 0.9
_FEW = 10  # steps, over which losses are smoothed
_HOPELESS = 4.0  # times the lowest loss
_FALLEN = 0.99  # of the first loss; above that it did not fall but wavered


@dataclass(frozen=True)
class RateCurve:
    """Rates, ascending, the smoothed loss at each, and the suggested rate; None where the loss never falls."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float | None


def find(step: Callable[[float], float], low: float = LOW, high: float = HIGH, steps: int = STEPS) -> RateCurve:
    """Train with rates that grow evenly on a log scale, and stop where the loss explodes (Smith 2017).

    Args:
        step: Makes one step of training at a rate, and returns the loss before it; the weights are the caller's to
            restore.
        low: The first rate.
        high: The last one.
        steps: The largest number of steps.
    """
    rates: list[float] = []
    losses: list[float] = []
    running = 0.0
    for number, rate in enumerate(np.geomspace(low, high, steps).tolist()):
        loss = step(rate)
        if not math.isfinite(loss):
            break
        running = _SMOOTHING * running + (1 - _SMOOTHING) * loss
        smooth = running / (1 - _SMOOTHING ** (number + 1))
        if losses and smooth > _HOPELESS * min(losses):
            break
        rates.append(rate)
        losses.append(smooth)
    return RateCurve(tuple(rates), tuple(losses), _steepest(rates, losses))


def _steepest(rates: list[float], losses: list[float]) -> float | None:
    """Return the rate where the loss falls fastest before its lowest point.

    The first losses are means of few steps: where one step's images are much easier than another's, as a detector's
    are, they fall without learning.
    """
    lowest = int(np.argmin(losses)) if losses else 0
    if lowest < 2 or losses[lowest] > _FALLEN * losses[0]:
        return None
    slopes = np.gradient(losses[: lowest + 1], np.log(rates[: lowest + 1]))
    first = min(_FEW, lowest // 2)
    return rates[first + int(np.argmin(slopes[first:]))]
