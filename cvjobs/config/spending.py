"""What a command may spend: prices of machines in USD an hour, and limits of time and money, read from options."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cvjobs.common.errors import WrongUse

LONGEST = 10 * 366 * 86_400.0  # s: above any use
DEAREST = 1e6  # USD an hour
_UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile("".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in _UNITS), re.ASCII)


class SpendingOptions(Protocol):
    """The options of a command that may cost something."""

    @property
    def price(self) -> tuple[str, ...]:
        """``--price``."""

    @property
    def max_cost(self) -> float | None:
        """``--max-cost``, in USD."""

    @property
    def max_time(self) -> int | str | None:
        """``--max-time``."""


@dataclass(frozen=True)
class Prices:
    """What an hour of a machine costs in USD: by a name that machines have, and of every other one."""

    named: dict[str, float] = field(default_factory=dict)
    every: float | None = None

    def __bool__(self) -> bool:
        return bool(self.named) or self.every is not None

    def of(self, names: Iterable[str]) -> tuple[str, float] | None:
        """Return the name and the price of a machine that has these names; "" where it is that of every machine."""
        have = set(names)
        for name, usd in self.named.items():
            if name in have:
                return name, usd
        return None if self.every is None else ("", self.every)


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What a command's machines cost, and the limits of one command: ``max_time`` in s, ``max_cost`` in USD."""

    prices: Prices = field(default_factory=Prices)
    max_time: float | None = None
    max_cost: float | None = None

    @property
    def limited(self) -> bool:
        """Whether the command is to end before something is spent."""
        return self.max_time is not None or self.max_cost is not None


def spending(options: SpendingOptions) -> Spending:
    """Return what a command may spend; raises WrongUse for a price or a duration that is none."""
    prices = parse_prices(options.price)
    if options.max_cost is not None and not prices:
        raise WrongUse("--max-cost needs to know what a machine costs: give --price USD, an hour's price, too.")
    max_time = None if options.max_time is None else seconds(options.max_time, "--max-time")
    return Spending(prices=prices, max_time=max_time, max_cost=options.max_cost)


def parse_prices(texts: Sequence[str]) -> Prices:
    """Return the prices that ``NAME=USD`` and ``USD`` stand for; raises WrongUse for another text, and for a second."""
    named: dict[str, float] = {}
    every: float | None = None
    for text in texts:
        name, sign, amount = text.rpartition("=")
        name, usd = name.strip(), _usd(amount)
        if usd is None or (sign and not name):
            raise WrongUse(
                f"--price {text!r} is no price: write what an hour of a machine costs in USD, "
                "as in 2.5, or for machines of a name gpu=2.5."
            )
        if name in named or (not sign and every is not None):
            raise WrongUse(f"--price of {name or 'every machine'} is given twice: remove one.")
        if sign:
            named[name] = usd
        else:
            every = usd
    return Prices(named, every)


def seconds(value: float | str, option: str) -> float:
    """Return the seconds of a duration: 90, 90s, 15m, 2h30m, 1d; raises WrongUse about ``option`` for what is none."""
    text = str(value).strip().lower()
    found = _DURATION.fullmatch(f"{text}s" if text.replace(".", "", 1).isdecimal() else text)
    parts = zip(found.groups(), _UNITS.values(), strict=True) if found else ()
    total = sum(float(number) * unit for number, unit in parts if number)
    if not 0 < total <= LONGEST:
        raise WrongUse(f"{option} {value!r} is no duration: write it as in 90s, 15m or 2h30m, at most ten years.")
    return total


def _usd(text: str) -> float | None:
    try:
        usd = float(text)
    except ValueError:
        return None
    return usd if math.isfinite(usd) and 0 <= usd <= DEAREST else None
