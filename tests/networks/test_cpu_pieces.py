"""How many images go through a model together on a CPU."""

from __future__ import annotations

import pytest

from cvjobs.networks import cpu_pieces


@pytest.mark.parametrize(
    ("count", "side", "step"),
    [(1, 512, 1), (4, 512, 4), (5, 512, 3), (8, 512, 4), (9, 512, 3), (3, 4000, 1), (100, 32, 100), (0, 512, 1)],
)
def test_pieces_are_about_as_large_and_no_larger_than_the_caches(count: int, side: int, step: int) -> None:
    assert cpu_pieces.step(count, side, side, 1 << 20) == step
