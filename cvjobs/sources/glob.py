"""A glob as a walk sees it: which names of a folder it matches, and which subfolders to go into."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from cvjobs.sources.hidden import HIDDEN, Hiding

WILDCARDS = frozenset("*?[")

Positions = frozenset[int]
"""The components of a glob that the names in one folder are matched against."""


class Match(NamedTuple):
    """How a glob meets a name: to its end, with components to go on after below it, or only as one to pass over.

    ``hidden`` is the reason of the latter, empty otherwise.
    """

    whole: bool
    below: list[int]
    hidden: str


class Glob:
    """The components of a glob from its first wildcard on; ``**`` is any number of folders.

    ``*`` and ``**`` do not match the names that are passed over; a component written with the first character of a
    hidden name does, as in a shell, and one that is another such name does.
    """

    def __init__(self, components: Iterable[str], hiding: Hiding) -> None:
        parts = list(components)
        self._hiding = hiding
        self._parts = [*parts, "*"] if parts[-1] == "**" else parts
        self._regexes = [re.compile(fnmatch.translate(part)) for part in self._parts]
        self.start = self.enter([0])

    def match(self, at: Positions, name: bytes) -> Match:
        """Match one name of a folder that is entered at these positions."""
        text = os.fsdecode(name)
        passed_over = self._hiding.reason(name)
        whole, hidden = False, ""
        below: list[int] = []
        for i in at:
            part = self._parts[i]
            if part != "**" and not self._regexes[i].match(text):
                continue
            if passed_over and (part[0] != text[0] if passed_over == HIDDEN else bool(WILDCARDS & set(part))):
                hidden = passed_over
            elif part == "**":
                below.append(i)
            elif i == len(self._parts) - 1:
                whole = True
            else:
                below.append(i + 1)
        return Match(whole, below, hidden)

    def enter(self, below: Iterable[int]) -> Positions:
        """Return the positions in a folder: those of its match, and those after a ``**`` that stands for nothing."""
        closed = set[int]()
        for i in below:
            end = next(k for k in range(i, len(self._parts)) if self._parts[k] != "**")
            closed.update(range(i, end + 1))
        return frozenset(closed)


def split_glob(pattern: str, hiding: Hiding) -> tuple[str, Glob]:
    """Return the fixed folder before the first wildcard component of an absolute pattern, and the rest."""
    parts = pattern.split(os.sep)
    first = next(i for i, part in enumerate(parts) if WILDCARDS & set(part))
    return os.sep.join(parts[:first]) or os.sep, Glob(parts[first:], hiding)
