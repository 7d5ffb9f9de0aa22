"""What was left out of a listing, or failed later, by reason: how often, and the names of the first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cvjobs.common.formatting import shortened
from cvjobs.sources.left_out import EXAMPLES, NamedCount, first_names
from cvjobs.sources.rows import Listing

SHOWN = 3
REASONS = 8
FOLLOWED = "links to folders, which were followed"


def skipped(listing: Listing) -> dict[str, NamedCount]:
    """Return what was no image, by reason; the most frequent first."""
    return named(listing.skipped, listing.left_out)


def named(counts: Mapping[str, int], first: Mapping[str, Sequence[str]]) -> dict[str, NamedCount]:
    """Return counts with the first names of each, the most frequent first."""
    return _sorted(
        {why: NamedCount(count=count, first=list(first.get(why, ()))) for why, count in counts.items() if count}
    )


def of(listing: Listing) -> dict[str, NamedCount]:
    """Return all that a listing left out: what was no image, and what failed, by its code."""
    failures = listing.failures
    codes = zip(failures["code"].to_pylist(), failures["path"].to_pylist(), strict=True)
    return _sorted({**failed(codes), **skipped(listing)})


def followed(listing: Listing) -> list[str]:
    """Return a sentence on the links to folders that were followed, none where there are none."""
    names = listing.followed
    found = NamedCount(count=len(names), first=list(names[:EXAMPLES]))
    return [f"{FOLLOWED}: {counted(found)}"] if names else []


def failed(pairs: Iterable[tuple[str, str]]) -> dict[str, NamedCount]:
    """Return what failed by code, given codes and paths; the most frequent first."""
    found: dict[str, NamedCount] = {}
    for code, path in pairs:
        own = found.setdefault(code, NamedCount(count=0, first=[]))
        own["count"] += 1
        if own["count"] <= EXAMPLES:
            own["first"].append(path)
    return _sorted(found)


def words(found: Mapping[str, NamedCount]) -> str:
    """Return the reasons as one line: ``3 .txt (a.txt, b.txt, c.txt), 1 hidden (.DS_Store)``; empty without any."""
    said = [f"{own['count']:,} {shortened(why)}{_names(own)}" for why, own in list(found.items())[:REASONS]]
    if len(found) > REASONS:
        rest = sum(own["count"] for own in list(found.values())[REASONS:])
        said.append(f"{rest:,} of {len(found) - REASONS:,} other kinds")
    return ", ".join(said)


def counted(own: NamedCount) -> str:
    """Return one count as text: ``2 (a.jpg, b.jpg)``."""
    return f"{own['count']:,}{_names(own)}"


def _names(own: NamedCount) -> str:
    if not own["first"]:
        return ""
    return f" ({first_names(own['count'], own['first'][:SHOWN])})"


def _sorted(found: Mapping[str, NamedCount]) -> dict[str, NamedCount]:
    return dict(sorted(found.items(), key=lambda item: (-item[1]["count"], item[0])))
