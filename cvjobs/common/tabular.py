"""What the Python functions return: records that a notebook shows as lines, and those that stand for a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cvjobs.common.errors import WrongUse, nearest

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa


class Readable:
    """A record that a notebook shows as the lines which the command prints; ``repr`` has all its fields."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._repr_pretty_ = _lines  # type: ignore[attr-defined]  # IPython takes it from the class itself alone


def _lines(record: Any, printer: Any, _cycle: bool) -> None:
    printer.text(str(record))


class Tabular(Readable):
    """A record with a table: ``to_arrow`` is its own, all else follows."""

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """Return the table, all of it in memory; with ``columns`` only those."""
        raise NotImplementedError

    def to_pandas(self, columns: list[str] | None = None) -> pandas.DataFrame:
        """Return the table as a pandas DataFrame; raises WrongUse where pandas is not installed."""
        try:
            import pandas  # noqa: F401 - Arrow's own words for its absence say nothing of what to do
        except ImportError as error:
            raise WrongUse("to_pandas() needs pandas: pip install pandas, or take to_arrow().") from error
        return self.to_arrow(columns).to_pandas()


def table(rows: Iterable[Mapping[str, Any]], columns: list[str] | None = None) -> pa.Table:
    """Return records as a table, with a column for each name that any of them has."""
    import pyarrow as pa

    found = [dict(row) for row in rows]
    names = list(dict.fromkeys(name for row in found for name in row))
    whole = pa.table({name: [row.get(name) for row in found] for name in names})
    return chosen(whole, columns)


def chosen(whole: pa.Table, columns: list[str] | None) -> pa.Table:
    """Return some columns of a table, all of them for None; raises WrongUse where it lacks one."""
    check(whole.column_names, columns)
    return whole if columns is None else whole.select(columns)


def check(known: list[str], columns: list[str] | None) -> None:
    """Raise WrongUse with the nearest name for a column that is not known."""
    for name in columns or ():
        if name not in known:
            raise WrongUse(f"There is no column {name!r}{nearest(name, known)}: choose from {', '.join(known)}.")
