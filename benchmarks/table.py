"""One measured line and its target, and how lines are shown: a table for a terminal, Markdown, JSON types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

HEADINGS = ("what", "value", "target", "met", "CPU ms/image", "note")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A measured value; ``raw`` are the numbers it was made of, ``note`` what a reader needs of them.

    ``bound`` says on which side of the target the value must lie, where there is one; ``cpu`` is the CPU time per image
    of the whole process tree in ms; ``noisy`` means that the baselines before and after differ by more than 10%.
    """

    what: str
    value: float
    unit: Literal["×", "s", "MiB", "top-1", "of 1", "img/s", "µs/image", "grey levels", "cosine", "tests"]
    bound: Literal["≥", "≤"] = "≥"
    target: float | None = None
    cpu: float | None = None
    noisy: bool = False
    note: str = ""
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the value reaches its target, None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.bound == "≥" else self.value <= self.target

    @property
    def said(self) -> str:
        """The value with its unit."""
        digits = f"{self.value:,.6f}" if self.unit == "cosine" else f"{self.value:,.3g}"
        return f"{digits if self.value < 1000 else format(self.value, ',.0f')} {self.unit}"

    def record(self) -> dict[str, Any]:
        """Return the row as JSON types."""
        return {**asdict(self), "met": self.met}

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, one cell for each of ``HEADINGS``."""
        return (
            self.what,
            self.said,
            "" if self.target is None else f"{self.bound} {self.target:,g} {self.unit}",
            {True: "yes", False: "NO", None: ""}[self.met],
            "" if self.cpu is None else f"{self.cpu:,.2f}",
            ", ".join(["noisy"] * self.noisy + [self.note] * bool(self.note)),
        )


def noisy(*baselines: float) -> bool:
    """Return whether repeated measurements of one thing differ by more than 10%."""
    return max(baselines) > 1.1 * min(baselines)


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def show(rows: Sequence[Row]) -> None:
    """Print the rows as a table."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
