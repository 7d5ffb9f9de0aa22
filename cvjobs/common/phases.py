"""What a command is doing, and how long each of its phases took: one after the other, from its start to its end."""

from __future__ import annotations

import time
from collections.abc import Mapping

from cvjobs.common.formatting import duration

IMPORTING = "importing"
SMALL = 0.05  # a phase of less than this share of the time is told together with others like it


class _Process:
    """When this process began, until a command has taken that for its own start; s of the monotonic clock."""

    began: float | None = None


def begin() -> None:
    """Let the next command of this process have begun now: what follows are its imports."""
    _Process.began = time.monotonic()


class Phases:
    """The phases of a command; a phase ends where the next one begins, so together they are the command's time.

    ``words`` is what the present one is shown as; ``number`` counts the phases that began.
    """

    def __init__(self) -> None:
        self._began, _Process.began = _Process.began or time.monotonic(), None
        self._marks: list[tuple[str, float]] = [(IMPORTING, self._began)]
        self.words = IMPORTING
        self.number = 0

    @property
    def name(self) -> str:
        """The present phase."""
        return self._marks[-1][0]

    @property
    def seconds(self) -> float:
        """How long the command takes so far."""
        return time.monotonic() - self._began

    @property
    def present(self) -> float:
        """How long the present phase takes so far, in s."""
        return time.monotonic() - self._marks[-1][1]

    def begin(self, name: str, words: str = "", at: float | None = None) -> None:
        """Let a phase begin, now or ``at`` a moment (s of the monotonic clock), never before the one that it ends."""
        moment = time.monotonic() if at is None else min(max(at, self._marks[-1][1]), time.monotonic())
        self.words = words or name
        if name != self.name:
            self.number += 1
            self._marks.append((name, moment))

    def spent(self) -> dict[str, float]:
        """Return the seconds of each phase in hundredths, in their order; they add up."""
        ends = [*(begun for _, begun in self._marks[1:]), time.monotonic()]
        found: dict[str, float] = {}
        before = 0.0
        for (name, _), end in zip(self._marks, ends, strict=True):
            until = round(end - self._began, 2)
            if until > before:
                found[name] = round(found.get(name, 0.0) + until - before, 2)
            before = until
        return found


def whole(spent: Mapping[str, float]) -> float:
    """Return the seconds that phases took together."""
    return round(sum(spent.values()), 2)


def told(spent: Mapping[str, float]) -> str:
    """Return in a line where the time went: the phases that took a share of it, and the rest in one number."""
    least = SMALL * whole(spent)
    large = {name: seconds for name, seconds in spent.items() if seconds >= least}
    rest = whole(spent) - whole(large)
    parts = [f"{name} {duration(seconds)}" for name, seconds in large.items() if seconds]
    return ", ".join(parts + [f"the rest {duration(rest)}"] * (rest >= 0.1))
