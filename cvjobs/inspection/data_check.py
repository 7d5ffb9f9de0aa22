"""What a look at data found: figures, problems by kind, and the lines that a person reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from cvjobs.common import rates, tabular
from cvjobs.common.formatting import counted, duration, shortened, visible
from cvjobs.common.tabular import Tabular
from cvjobs.inspection.problems import FILE

NUMBERS, PAGE = "check.json", "report.html"
SHOWN = 3  # names of a kind of problem


@dataclass(frozen=True, kw_only=True)
class DataCheck(Tabular):
    """What was found in some data; ``to_arrow`` has a row for each problem, the columns of ``problems.parquet``.

    ``images`` are those that could be decoded, by split; ``figures`` are of objects, boxes or pixels, ``classes`` a
    record of each class, ``problems`` by kind their ``count``, whether they are ``wrong``, a ``title`` and the
    ``first``.
    """

    data: str
    task: str
    out: str
    truths: list[dict[str, str]]
    listed: int
    images: dict[str, int]
    classes: list[dict[str, Any]] = field(repr=False)
    figures: dict[str, Any]
    image_sizes: dict[str, Any]
    problems: dict[str, dict[str, Any]]
    left_out: Mapping[str, Any]
    notes: list[str]
    seconds: float
    images_per_second: float
    table: pa.Table = field(repr=False)

    @property
    def wrong(self) -> int:
        """How many problems are to be corrected."""
        return sum(own["count"] for own in self.problems.values() if own["wrong"])

    @property
    def doubtful(self) -> int:
        """How many problems are to be looked at."""
        return sum(own["count"] for own in self.problems.values() if not own["wrong"])

    @property
    def exit_code(self) -> int:
        """1 where something is to be corrected, else 0."""
        return 1 if self.wrong else 0

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``check.json``."""
        found = {name: value for name, value in vars(self).items() if name != "table"}
        return {**found, "wrong": self.wrong, "doubtful": self.doubtful}

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """Return the problems, one row each."""
        return tabular.chosen(self.table, columns)

    @property
    def about(self) -> str:
        """How much was looked at, in a line."""
        splits = {split: count for split, count in self.images.items() if split}
        parts = f" ({', '.join(f'{count:,} {split}' for split, count in splits.items())})" if splits else ""
        found = [f"{counted(sum(self.images.values()), 'images')}{parts}", counted(len(self.classes), "classes")]
        if "objects" in self.figures:
            found.append(counted(self.figures["objects"], "objects"))
        return ", ".join(found)

    def __str__(self) -> str:
        """Return the lines that the command prints."""
        lines = [self.about]
        for own in self.problems.values():
            sign = "!" if own["wrong"] else "?"
            lines.append(f"  {sign} {own['title']}: {own['count']:,}{_first(own)}")
        lines += [f"  {visible(note)}" for note in self.notes]
        if self.problems:
            lines.append(f"{self.wrong:,} to correct (!), {self.doubtful:,} to look at (?): {self.out}/{FILE}")
        else:
            lines.append("no problem found")
        took = f"{duration(self.seconds)}, {rates.told(self.images_per_second)}"
        return "\n".join([*lines, f"{self.out}/{PAGE} ({took})"])


def _first(own: Mapping[str, Any]) -> str:
    """Return the first names of a kind of problem in brackets."""
    names = list(dict.fromkeys(filter(None, (row.get("path") or row.get("where") for row in own["first"]))))
    more = ", ..." if own["count"] > len(names[:SHOWN]) else ""
    return f" ({', '.join(shortened(name, 60) for name in names[:SHOWN])}{more})" if names else ""
