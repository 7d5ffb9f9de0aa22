"""What a listing passed over: by reason, how many and the first names; and how people are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TypedDict

from cvjobs.common.failures import CODES
from cvjobs.common.formatting import shortened, visible
from cvjobs.common.paths import path_text

EXAMPLES = 5  # names of each reason
FAILED = 3  # names of each code on a terminal
REMEDIES = {"folder link": "not followed: name it as the source, or its images in a list"}
REASONS = 8  # in the text, the most frequent ones first; all of them in the JSON and on the page


class NamedCount(TypedDict):
    """How many there are for one reason, and the names of the first; as JSON has it."""

    count: int
    first: list[str]


class LeftOut:
    """Counts what is passed over, and keeps the first names (paths relative to the root) of each reason."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._names: dict[str, list[bytes]] = {}

    def add(self, reason: str, path: bytes) -> None:
        """Add one entry."""
        count = self.counts[reason] = self.counts.get(reason, 0) + 1
        if count <= EXAMPLES:
            self._names.setdefault(reason, []).append(path)

    def extend(self, reason: str, count: int, first: Iterable[bytes]) -> None:
        """Add many entries of one reason, with the first of their names."""
        mine = self._names.setdefault(reason, [])
        mine += islice(first, EXAMPLES - len(mine))
        self.counts[reason] += count

    def merge(self, other: LeftOut) -> None:
        """Add what another one counted."""
        for reason, count in other.counts.items():
            self.extend(reason, count, other._names[reason])

    def names(self) -> dict[str, tuple[str, ...]]:
        """Return the first names of each reason as text."""
        return {reason: tuple(sorted(map(path_text, names))) for reason, names in self._names.items()}


def told(left_out: Mapping[str, NamedCount]) -> list[str]:
    """Return what was left out as lines for a terminal, of the most frequent reasons."""
    ordered = sorted(left_out.items(), key=lambda item: -item[1]["count"])
    lines = [f"  skipped {own['count']:,}  {visible(why)}{_named(own)}{_remedy(why)}" for why, own in ordered]
    if rest := sum(own["count"] for _, own in ordered[REASONS:]):
        lines[REASONS:] = [f"  skipped {rest:,}  of {len(ordered) - REASONS:,} other kinds"]
    return lines


def told_failed(failed: Mapping[str, NamedCount]) -> list[str]:
    """Return what failed as lines for a terminal, by code, with what to do."""
    return [
        f"  failed {own['count']:,}  {code}: {CODES[code].remedy} ({first_names(own['count'], own['first'][:FAILED])})"
        for code, own in failed.items()
    ]


def rows(left_out: Mapping[str, NamedCount]) -> list[tuple[str, int, str]]:
    """Return (reason, count, first names) for the table of a page, most frequent first."""
    ordered = sorted(left_out.items(), key=lambda item: (-item[1]["count"], item[0]))
    return [(why, own["count"], first_names(own["count"], own["first"])) for why, own in ordered]


def first_names(count: int, names: Sequence[str]) -> str:
    """Return names as text, the first of ``count``: ``a.jpg, b.jpg, …``."""
    return ", ".join(map(shortened, names)) + (", …" if names and count > len(names) else "")


def _named(own: NamedCount) -> str:
    return f": {first_names(own['count'], own['first'])}" if own["first"] else ""


def _remedy(why: str) -> str:
    return f" ({REMEDIES[why]})" if why in REMEDIES else ""
