"""Which images of a night failed, changed or are gone: how many, the first names, and in which steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.common import formatting
from cvjobs.common.failures import CODES
from cvjobs.dataset.snapshot_reader import open_newest
from cvjobs.operations.nightly.record import Night, StepRecord
from cvjobs.sources.left_out import EXAMPLES, FAILED, first_names
from cvjobs.storage.store import Store

AGAIN = ("verify", "export")  # they count again what other steps made
_CHANGES = ("changed", "gone")


@dataclass(frozen=True, kw_only=True)
class AffectedImages:
    """Images to which the same happened in some steps; ``code`` says why they failed, ``first`` has some names."""

    what: str
    code: str
    count: int
    first: list[str]
    steps: list[str] = field(default_factory=list)

    @property
    def names(self) -> str:
        """The first names, as text."""
        return first_names(self.count, self.first)

    @property
    def remedy(self) -> str:
        """What to do about it; empty where there is nothing to do."""
        return CODES[self.code].remedy if self.code in CODES else ""

    def __str__(self) -> str:
        code = f" as {self.code}" if self.code else ""
        names = f": {first_names(self.count, self.first[:FAILED])}" if self.first else ""
        return f"{formatting.counted(self.count, 'images')} {self.what}{code}{names} (in {', '.join(self.steps)})"


def of(night: Night) -> list[AffectedImages]:
    """Return what happened to images: failures first, by their number; the same images of a source are there once."""
    found: dict[tuple[Any, ...], AffectedImages] = {}
    for work in night.steps:
        for one in _of_step(work) if work.command not in AGAIN else ():
            key = (work.source, one.what, one.code, one.count, *one.first)
            found.setdefault(key, one).steps.append(work.name)
    order = ("failed", *_CHANGES)
    return sorted(found.values(), key=lambda one: (order.index(one.what), -one.count))


def failed(night: Night) -> tuple[int, bool]:
    """Return how many images failed in a night, and whether each is counted once.

    A record of an earlier version counts what failed in each step: images that failed in two of them are there twice.
    """
    counts = [_count(work, "failed") for work in night.steps if work.command not in AGAIN]
    if night.failed is None:
        return sum(counts), sum(map(bool, counts)) < 2
    others = [_count(work, "failed") for work in night.steps if work.command not in AGAIN and not holds_results(work)]
    return night.failed + sum(others), True


def computed(night: Night) -> int:
    """Return how many results the steps of a night computed: several of an image where several steps are about it."""
    return sum(_told(work, "computed") for work in night.steps if work.command not in AGAIN)


def unchanged(night: Night) -> bool:
    """Return whether a night is done for which no image was new, changed or gone, as each of its steps says."""
    asked = [work for work in night.steps if work.command not in ("index", *AGAIN)]
    known = [work for work in asked if holds_results(work)]
    names = ("computed", "gone", "added", "changed", "removed")
    moved = any(_told(work, name) for work in night.steps for name in names)
    return (
        night.status == "done"
        and 0 < len(known) == len(asked)
        and not moved
        and all("gone" in work.summary for work in known)
    )


def holds_results(work: StepRecord) -> bool:
    """Return whether a step has told what its output holds: results of images, and errors."""
    return work.command not in AGAIN and "ok" in work.summary and "failed" in work.summary


def count_once(outputs: Iterable[Store]) -> int:
    """Return how many images have an error in some of these outputs; raises a CvjobsError where one cannot be read."""
    found: dict[str, list[pa.ChunkedArray]] = {}
    for store in outputs:
        reader = open_newest(store)
        images = found.setdefault(reader.snapshot.root or reader.snapshot.source, [])
        images += [table["image_id"] for table in reader.errors(["image_id"])]
    chunks = [[chunk for column in images for chunk in column.chunks] for images in found.values()]
    return sum(pc.count_distinct(pa.chunked_array(some)).as_py() for some in chunks if some)


def _of_step(work: StepRecord) -> list[AffectedImages]:
    named = work.summary.get("first_failed") or {}
    codes = work.summary.get("failures") or {}
    found = [
        AffectedImages(what="failed", code=code, count=int(count), first=named.get(code, {}).get("first", []))
        for code, count in codes.items()
    ]
    for what in _CHANGES:
        if (count := _told(work, what)) and work.command not in ("index", *AGAIN):  # which follow what others did
            names = [name for told in (*work.earlier, work.summary) for name in told.get(f"first_{what}", [])]
            found.append(AffectedImages(what=what, code="", count=count, first=names[:EXAMPLES]))
    return found


def _count(work: StepRecord, key: str) -> int:
    value = work.summary.get(key, 0)
    return int(value) if isinstance(value, (int, float)) else 0


def _told(work: StepRecord, key: str) -> int:
    """Return a count of all tries of a step: each did its part."""
    return _count(work, key) + sum(int(told.get(key, 0)) for told in work.earlier)
