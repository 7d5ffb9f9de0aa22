"""Seeds of odd inputs: a few of them in ``make test``, as many as fit into some minutes in ``make faults``."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

Seeds = Callable[[int], Iterator[int]]
RAN = pytest.StashKey[Counter[str]]()


def add_options(parser: pytest.Parser) -> None:
    """Add what the long tests are told."""
    parser.addoption("--fuzz-minutes", type=float, default=10.0, help="how long each of the long tests of seeds runs")
    parser.addoption("--fuzz-from", type=int, default=1000, help="the first seed of the long tests")


def seeds_of(request: pytest.FixtureRequest) -> Seeds:
    """Return what gives a test its seeds: the short one ``few``, the long one as many as its minutes allow.

    The seed that a test failed with is printed.
    """
    config = request.config

    def seeds(few: int) -> Iterator[int]:
        numbers: Iterator[int] = iter(range(few))
        end = float("inf")
        if request.param == "many":
            numbers = itertools.count(config.getoption("--fuzz-from"))
            end = time.monotonic() + 60 * config.getoption("--fuzz-minutes")
        for number in numbers:
            print(f"seed {number}")
            yield number
            config.stash.setdefault(RAN, Counter())[request.node.name] += 1
            if time.monotonic() > end:
                return

    return seeds


def summary(config: pytest.Config) -> str:
    """Return how many seeds each long test had, empty where none ran."""
    ran = config.stash.get(RAN, Counter())
    return ", ".join(
        f"{name.removesuffix('[many]')} {count:,}" for name, count in ran.items() if name.endswith("[many]")
    )
