"""One thing that was looked at, and what to do where it is not as it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from cvjobs.common import tabular
from cvjobs.common.tabular import Tabular

if TYPE_CHECKING:
    import pyarrow as pa

Level = Literal["ok", "warning", "broken"]


@dataclass(frozen=True)
class Finding:
    """``level`` is ok, warning (works, but not well or not safely) or broken; ``fix`` is a sentence, empty for ok."""

    level: Level
    subject: str
    what: str
    fix: str = ""

    @classmethod
    def ok(cls, subject: str, what: str) -> Finding:
        """Return that something is as it should be."""
        return cls("ok", subject, what)

    @classmethod
    def warning(cls, subject: str, what: str, fix: str) -> Finding:
        """Return that something works, but not well or not safely."""
        return cls("warning", subject, what, fix)

    @classmethod
    def broken(cls, subject: str, what: str, fix: str) -> Finding:
        """Return that something does not work, or is open to others."""
        return cls("broken", subject, what, fix)


class Checked(list[Finding], Tabular):
    """All findings about a machine, in the order of the checks."""

    @property
    def counts(self) -> dict[str, int]:
        """The number of findings of each level."""
        return {level: sum(finding.level == level for finding in self) for level in get_args(Level)}

    @property
    def exit_code(self) -> int:
        """1 where something is broken, else 0."""
        return 1 if self.counts["broken"] else 0

    def as_dict(self) -> dict[str, Any]:
        """Return the findings and how many of each level there are, as JSON types."""
        return {"findings": [vars(finding) for finding in self], **self.counts}

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """Return the findings, one row each."""
        return tabular.table(map(vars, self), columns)

    def __str__(self) -> str:
        levels, lines = get_args(Level), []
        for finding in sorted(self, key=lambda finding: levels.index(finding.level)):
            lines.append(f"{finding.level:<7}  {finding.subject:<8}  {finding.what}")
            lines += [f"{'':<19}{finding.fix}"] * bool(finding.fix)
        counts = self.counts
        return "\n".join([*lines, f"{counts['ok']} ok, {counts['warning']} warnings, {counts['broken']} broken"])
