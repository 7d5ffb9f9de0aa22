"""What a setting of a recipe is as an option: its group, sentence and limit, and how its numbers are typed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from cvjobs.common.errors import WrongUse


class Limit(NamedTuple):
    """The range of a number, in words too; ``least`` and ``most`` belong to it, where it has such ends."""

    words: str
    holds: Callable[[float], bool]
    least: float | None = None
    most: float | None = None


POSITIVE = Limit("more than 0", lambda value: 0 < value < math.inf)
NOT_NEGATIVE = Limit("at least 0", lambda value: 0 <= value < math.inf, least=0)
SHARE = Limit("from 0 to 1", lambda value: 0 <= value <= 1, least=0, most=1)
BELOW_ONE = Limit("from 0 to below 1", lambda value: 0 <= value < 1, least=0)


@dataclass(frozen=True)
class Setting:
    """What a field of a recipe is as an option: its group in ``cvjobs train --help``, its sentence, its limit.

    ``off`` says what an empty value means. A choice of words has its choices, and a pair of numbers its ``metavar``.
    """

    group: str
    help: str
    limit: Limit | None = None
    metavar: str | None = None
    off: str = ""


def option_of(name: str) -> str:
    """Return the option of a setting, as it is typed."""
    return f"--{name.replace('_', '-')}"


def span(text: str, option: str, example: str = "0.5:1") -> tuple[float, ...]:
    """Return the one or two numbers of ``224``, ``128:224`` or ``0.5:1``.

    Raises:
        WrongUse: it is something else.
    """
    try:
        numbers = tuple(float(part) for part in text.split(":"))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 2) or not all(map(math.isfinite, numbers)):
        raise WrongUse(f"{option} must be a number, or two as in {example}, not {text!r}.")
    return numbers


def sides(text: str) -> tuple[int, ...]:
    """Return the one or two sides in pixels of an ``--img-size``; see ``span``."""
    numbers = span(text, "--img-size", "128:224")
    if any(side != int(side) for side in numbers):
        raise WrongUse(f"--img-size must be whole pixels, as in 224 or 128:224, not {text!r}.")
    return tuple(map(int, numbers))
