"""What a listing passed over: by reason, how many and the first names; and how people are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from cvjobs.common.formatting import shortened, visible
from cvjobs.common.paths import path_text

EXAMPLES = 5  # names of each reason
REASONS = 8  # in the text, the most frequent ones first; all of them in the JSON and on the page


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


def told(skipped: Mapping[str, int], first: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what was left out as lines for a terminal, of the most frequent reasons."""
    ordered = Counter(skipped).most_common()
    lines = [f"  skipped {count:,}  {visible(why)}{_named(count, first.get(why, ()))}" for why, count in ordered]
    if rest := sum(count for _, count in ordered[REASONS:]):
        lines[REASONS:] = [f"  skipped {rest:,}  of {len(ordered) - REASONS:,} other kinds"]
    return lines


def rows(skipped: Mapping[str, int], first: Mapping[str, Sequence[str]]) -> list[tuple[str, int, str]]:
    """Return (reason, count, first names) for the table of a page, most frequent first."""
    ordered = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    return [(why, count, _listed(count, first.get(why, ()))) for why, count in ordered]


def _named(count: int, names: Sequence[str]) -> str:
    return f": {_listed(count, names)}" if names else ""


def _listed(count: int, names: Sequence[str]) -> str:
    return ", ".join(map(shortened, names)) + (", …" if names and count > len(names) else "")
