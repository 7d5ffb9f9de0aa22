"""Cron's five fields, read as cron reads them: https://man7.org/linux/man-pages/man5/crontab.5.html."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cvjobs.common.errors import WrongUse, nearest

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_PART = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d+))?")


@dataclass(frozen=True)
class CronField:
    """One field: its text with names as numbers, the values it stands for, and whether it begins with ``*``."""

    text: str
    values: tuple[int, ...]
    full: bool

    @property
    def star(self) -> bool:
        """Whether cron takes the field for unrestricted when it combines days of month and days of week."""
        return self.text.startswith("*")


@dataclass(frozen=True, kw_only=True)
class Expression:
    """When something starts; ``weekday`` counts from Sunday, 0."""

    minute: CronField
    hour: CronField
    day: CronField
    month: CronField
    weekday: CronField

    @property
    def either(self) -> bool:
        """Whether a day of month or a day of week is enough: so it is where neither field begins with ``*``."""
        return not self.day.star and not self.weekday.star

    def __str__(self) -> str:
        return " ".join(field.text for field in (self.minute, self.hour, self.day, self.month, self.weekday))


def parse(text: str) -> Expression:
    """Return the times that a cron expression or a macro (``@daily``) means; raises WrongUse for anything else."""
    given = " ".join(text.lower().split())
    if given.startswith("@"):
        if given not in _MACROS:
            raise WrongUse(f"--cron {given} is no time{nearest(given, _MACROS)}: write five fields, as in '0 2 * * *'.")
        given = _MACROS[given]
    fields = given.split(" ")
    if len(fields) != 5:
        raise WrongUse(
            f"--cron '{text}' has {len(fields) if given else 0} fields: write minute, hour, day, month and weekday, "
            "as in '0 2 * * *'."
        )
    made = Expression(
        minute=_field("minute", fields[0], 0, 59),
        hour=_field("hour", fields[1], 0, 23),
        day=_field("day of the month", fields[2], 1, 31),
        month=_field("month", fields[3], 1, 12, _MONTHS),
        weekday=_field("day of the week", fields[4], 0, 7, _DAYS),
    )
    if not made.either and not any(made.day.values[0] <= _LONGEST[month - 1] for month in made.month.values):
        raise WrongUse(f"--cron '{text}' never comes: no such month has a day {made.day.values[0]}.")
    return made


def _field(what: str, text: str, low: int, high: int, names: tuple[str, ...] = ()) -> CronField:
    wrong = WrongUse(
        f"'{text}' in --cron is no {what}: write *, numbers from {low} to {high}, ranges (1-5), steps (*/2) or lists."
    )
    values: set[int] = set()
    texts = []
    for part in text.split(","):
        found = _PART.fullmatch(part)
        if found is None:
            raise wrong
        star, first, last, step = found.groups()
        begin, end = (low, high) if star else (_number(first, names, low), _number(last or first, names, low))
        if not low <= begin <= end <= high or (step and (int(step) < 1 or not (star or last))):
            raise wrong
        values |= set(range(begin, end + 1, int(step or 1)))
        texts.append(("*" if star else f"{begin}-{end}" if last else str(begin)) + (f"/{step}" if step else ""))
    if high == 7:
        values = {value % 7 for value in values} if 7 in values and not text.startswith("*") else values - {7}
        high = 6
    return CronField(",".join(texts), tuple(sorted(values)), len(values) == high - low + 1)


def _number(text: str, names: tuple[str, ...], low: int) -> int:
    if text in names:
        return names.index(text) + low
    return int(text) if text.isdecimal() and text.isascii() else -1
