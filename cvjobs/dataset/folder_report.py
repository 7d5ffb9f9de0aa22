"""What a check of a folder found that holds no images' results: an index, a training run, answers, nights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cvjobs.common.formatting import counted
from cvjobs.common.tabular import Readable


@dataclass(frozen=True, kw_only=True)
class FolderReport(Readable):
    """``holds`` says what the folder is; ``checked`` counts what was read, by its name in the plural.

    Such a name begins with what is counted: ``chunks of images``.
    ``problems`` are sentences that say what to do, empty where all is as it was written; ``notes`` are no faults.
    """

    place: str
    holds: str
    checked: Mapping[str, int]
    problems: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """0 where all is as it was written, else 1."""
        return 1 if self.problems else 0

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {**vars(self), "checked": dict(self.checked), "exit_code": self.exit_code}

    def __str__(self) -> str:
        counts = ", ".join(counted(count, what) for what, count in self.checked.items() if count)
        lines = [f"{self.holds}: {counts or 'nothing'} checked"]
        lines += [f"  problem: {problem}" for problem in self.problems]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join([*lines, f"{self.place} is {'NOT ' if self.problems else ''}exact"])
