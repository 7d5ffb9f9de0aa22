"""Records that stand for a table, such as the rows of an output: read whole, as Arrow or as pandas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cvjobs.common.errors import WrongUse

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa


class Tabular:
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
    return whole if columns is None else whole.select(columns)
