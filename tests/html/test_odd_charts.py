"""Charts and figures of hardly anything: one value, all values equal, zero, extreme or none."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import odd_sizes
import pytest
from fuzzing import Seeds
from page_parser import harmless, macro

from cvjobs.common.formatting import counted
from cvjobs.html import charts

NUMBER = re.compile(r"(?<![a-z])-?(nan|inf)(?![a-z])", re.IGNORECASE)


@pytest.mark.parametrize(
    ("number", "things", "said"),
    [
        (0, "images", "0 images"),
        (1, "images", "1 image"),
        (1234, "images", "1,234 images"),
        (1, "queries", "1 query"),
        (1, "classes", "1 class"),
        (1, "chunks of images", "1 chunk of images"),
        (1, "images have", "1 image has"),
        (2, "images have", "2 images have"),
        (1, "rows belong", "1 row belongs"),
    ],
)
def test_one_is_one(number: int, things: str, said: str) -> None:
    assert counted(number, things) == said


def drawn(body: str, **values: object) -> None:
    """A chart on a page, without a number that is none."""
    page = macro(body, **values)
    harmless(page)
    found = NUMBER.search(page.partition("</style>")[2])
    assert not found, page[max(0, found.start() - 80) : found.end() + 80]


def line(points: list[tuple[float, float]], clock: bool) -> None:
    drawn("{{ parts.line(points, 'title', 'x', 'y', clock) }}", points=points, clock=clock)


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(0, 1)],
        [(0, 1), (0, 2)],
        [(0, 0), (1, 0)],
        [(0, 5e-324), (1, 5e-324)],
        [(0, 1e308), (1, 1e308)],
        [(0, -1), (1, -2)],
        [(0, 3), (5e-324, 3)],
        [(-1e308, 3), (1e308, 3)],
        [(0, 1), (1e300, 1)],
    ],
)
@pytest.mark.parametrize("clock", [False, True])
def test_a_line_of_hardly_anything(points: list[tuple[float, float]], clock: bool) -> None:
    line(points, clock)


@pytest.mark.parametrize("counts", [[], [0], [1], [0, 0], [5e-324], [1e308, 1e308], [7, 7, 7], [1, 10**15], [0.2]])
def test_a_histogram_of_hardly_anything(counts: list[float]) -> None:
    for names in (["a"] * len(counts), ["a"] * (len(counts) + 1)):
        drawn("{{ parts.histogram(chart) }}", chart=charts.histogram(counts, names, "title", "x", "y"))


def test_odd_charts(seeds: Seeds, tmp_path: Path) -> None:
    del tmp_path
    for seed in seeds(10):
        random = np.random.default_rng(seed)
        count = int(random.choice([0, 1, 2, 3, 30]))
        line(odd_sizes.points(random, count), bool(random.integers(2)))
        counts = [float(abs(y)) for _, y in odd_sizes.points(random, count) if np.isfinite(y)]
        chart = charts.histogram(counts, ["a"] * len(counts), "title", "x", "y")
        drawn("{{ parts.histogram(chart) }}", chart=chart)
        shares = odd_sizes.numbers(random, count)
        drawn("{{ parts.bars(values) }}", values=[("a", share, "b") for share in shares])
