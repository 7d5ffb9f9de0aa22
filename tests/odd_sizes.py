"""Results of hardly any size, made by a random generator: vectors, rows, numbers that are equal, zero or extreme."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Random = np.random.Generator

EXTREMES = (0.0, -0.0, 1.0, 1 - 2**-24, 2.0**-149, 2.0**-126, 1e-7, 0.5)


def vectors(random: Random, count: int, dim: int) -> Floats:
    """Vectors of which some are zero, equal, opposite, tiny or huge."""
    found = random.normal(size=(count, dim)).astype(np.float32)
    kinds = random.integers(0, 8, count)
    found[kinds == 0] = 0
    found[kinds == 1] = -0.0
    found[kinds == 2] = found[0]
    found[kinds == 3] = -found[0]
    found[kinds == 4] *= np.float32(1e-30)
    found[kinds == 5] *= np.float32(1e30)
    found[kinds == 6] = np.eye(dim, dtype=np.float32)[random.integers(0, dim, int((kinds == 6).sum()))]
    return found


def numbers(random: Random, count: int) -> list[float]:
    """Shares from 0 to 1: all equal, all zero, extreme, or plain ones."""
    kind = random.integers(0, 4)
    if kind == 0:
        return [float(random.choice(EXTREMES))] * count
    if kind == 1:
        return [0.0] * count
    if kind == 2:
        return [float(value) for value in random.choice(EXTREMES, count)]
    return [float(value) for value in random.random(count)]


def points(random: Random, count: int) -> list[tuple[float, float]]:
    """Points of a line in the order of x, some of them at one place, some beyond what a float can hold."""
    wild = [*EXTREMES, 5e-324, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 1e-300, 123456.0, -3.0]
    across = sorted(float(x) for x in random.choice([0.0, 1.0, 1.0, 2.0, 1e-12, 5e5, 1e300], count))
    up = numbers(random, count) if random.integers(2) else [float(y) for y in random.choice(wild, count)]
    return list(zip(across, up, strict=True))
