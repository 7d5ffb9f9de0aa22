"""What an evaluation found, as JSON types and as the lines that a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cvjobs.common import tabular
from cvjobs.common.formatting import count, visible
from cvjobs.common.tabular import Tabular
from cvjobs.evaluation.confusion_tables import FILE

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Sides:
    """What is compared, and where the files go; ``version`` is that of the predictions' snapshot."""

    task: str
    predictions: str
    version: int | None
    truth: str
    truth_format: str
    out: str


@dataclass(frozen=True, kw_only=True)
class Evaluation(Tabular):
    """The numbers of one evaluation.

    ``metrics`` are floats by name, None where one is not defined; ``classes`` one record a class, with ``name``;
    ``images``, ``unpaired``, ``left_out`` and ``notes`` say what was evaluated, what had no partner, what the listing
    of the truth left out, and more; ``more`` is the rest of ``eval.json`` (curves, confusion), and ``confusion`` what
    it does not hold of the matrix, as ``confusion_tables.pairs``. ``headline`` and ``columns`` name the metrics, and
    the columns of ``classes``, that a short table shows.
    """

    sides: Sides
    metrics: dict[str, Any]
    classes: list[dict[str, Any]] = field(repr=False)
    images: dict[str, int]
    unpaired: Mapping[str, Any]
    notes: list[str]
    headline: Sequence[str]
    columns: Sequence[str]
    more: dict[str, Any] = field(default_factory=dict, repr=False)
    confusion: pa.Table | None = field(default=None, repr=False)
    left_out: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``eval.json``."""
        names = ("images", "unpaired", "left_out", "metrics", "classes", "notes")
        file = {} if self.confusion is None else {"confusion_file": FILE}
        return {**vars(self.sides), **{name: getattr(self, name) for name in names}, **self.more, **file}

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """Return the numbers of each class, one row a class."""
        return tabular.table(self.classes, columns)

    def __str__(self) -> str:
        """Return the lines that the command prints."""
        lines = [_columns([[name, figure(self.metrics[name])] for name in self.headline])]
        shown = self.classes[:SHOWN]
        if len(self.classes) > 1:
            rows = [[visible(c["name"]), *(figure(c[name]) for name in self.columns)] for c in shown]
            lines += ["", _columns([["class", *self.columns], *rows])]
            if len(self.classes) > SHOWN:
                lines.append(f"and {len(self.classes) - SHOWN:,} more classes")
        lines += [
            "",
            self.about,
            *map(visible, self.notes),
            *([] if self.confusion is None else [f"{self.sides.out}/{FILE}"]),
            f"{self.sides.out}/eval.json",
            f"{self.sides.out}/eval.html",
        ]
        return "\n".join(lines)

    @property
    def about(self) -> str:
        """Return how many images the numbers are about."""
        known = self.images
        left = [f"{known[what]:,} {what}" for what in ("failed", "missing") if known[what]]
        counted = (
            f"{known['truth']:,} image{'' if known['truth'] == 1 else 's'}, {known['evaluated']:,} with predictions"
        )
        ignored = self.more.get("ignored")
        void = [f"{_share(ignored['share'])} of the pixels ignored{_value(ignored['value'])}"] if ignored else []
        return ", ".join([counted, *left, *void])


def _share(share: float) -> str:
    """Return a share in percent; what is not nothing, and what is not all, stays visible."""
    if share in (0, 1):
        return f"{share:.0%}"
    return "<0.1%" if share < 0.001 else ">99.9%" if share > 0.999 else f"{share:.1%}"


def _value(value: int | None) -> str:
    return "" if value is None else f" ({value})"


def figure(value: Any) -> str:
    """Return a metric as text: a share with four digits, a count, or a dash for what is not defined."""
    if value is None or value == -1:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else count(value) if isinstance(value, int) else str(value)


def _columns(rows: list[list[str]]) -> str:
    """Return rows as lines: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )
