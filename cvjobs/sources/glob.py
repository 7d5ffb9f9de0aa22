"""A glob as a walk sees it: which names of a folder it matches, and which subfolders to go into."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

WILDCARDS = frozenset("*?[")
HIDDEN = b"._"

Positions = frozenset[int]
"""The components of a glob that the names in one folder are matched against."""


class Match(NamedTuple):
    """How a glob meets a name: to its end, with components to go on after below it, or only as a hidden name."""

    whole: bool
    below: list[int]
    hidden: bool


class Glob:
    """The components of a glob from its first wildcard on; ``**`` is any number of folders.

    ``*`` and ``**`` do not match hidden names (those that begin with ``.`` or ``_``); a component written
    with that first character does, as in a shell.
    """

    def __init__(self, components: Iterable[str]) -> None:
        parts = list(components)
        self._parts = [*parts, "*"] if parts[-1] == "**" else parts
        self._regexes = [re.compile(fnmatch.translate(part)) for part in self._parts]
        self.start = self.enter([0])

    def match(self, at: Positions, name: bytes) -> Match:
        """Match one name of a folder that is entered at these positions."""
        text = os.fsdecode(name)
        whole, hidden = False, False
        below: list[int] = []
        for i in at:
            part = self._parts[i]
            if part != "**" and not self._regexes[i].match(text):
                continue
            if name[0] in HIDDEN and part[0] != text[0]:
                hidden = True
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


def split_glob(pattern: str) -> tuple[str, Glob]:
    """Return the fixed folder before the first wildcard component of an absolute pattern, and the rest."""
    parts = pattern.split(os.sep)
    first = next(i for i, part in enumerate(parts) if WILDCARDS & set(part))
    return os.sep.join(parts[:first]) or os.sep, Glob(parts[first:])
