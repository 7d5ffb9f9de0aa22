"""How answers look: a table on a terminal, tab-separated rows elsewhere; names cannot touch the terminal."""

from __future__ import annotations

import sys
from itertools import islice

import numpy as np

from cvjobs.common.formatting import visible, visible_lines
from cvjobs.indexing.search.answers import Answer, Duplicates, Neighbours

QUERIES, GROUPS = 10, 15


def show(answer: Neighbours | Duplicates) -> None:
    """Print an answer: its first rows to a terminal, all rows to a pipe where no folder holds them, and its lines."""
    terminal = sys.stdout.isatty()
    if terminal:
        _table(answer)
    elif not answer.out:
        _rows(answer)
    print(visible_lines(str(answer)), file=sys.stdout if terminal or answer.out else sys.stderr)


def _rows(answer: Answer) -> None:
    first = True
    for batch in answer.batches():
        if first:
            print("\t".join(batch.schema.names))
            first = False
        columns = [[_cell(value) for value in column.to_pylist()] for column in batch.columns]
        sys.stdout.writelines("\t".join(row) + "\n" for row in zip(*columns, strict=True))


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:z.4f}" if isinstance(value, float) else visible(str(value))


def _table(answer: Neighbours | Duplicates) -> None:
    from rich.console import Console

    Console(highlight=False).print(_neighbours(answer) if isinstance(answer, Neighbours) else _groups(answer))


def _neighbours(answer: Neighbours) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table("query", "rank", "path", "score", box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.columns[1].justify = table.columns[3].justify = "right"
    for query, rows, _ in islice(answer.sample.each(), QUERIES):
        names = [query, *[""] * (rows.num_rows - 1)]
        if not rows.num_rows:
            table.add_row(Text(visible(query)), "", Text("no neighbour", style="dim"), "")
        for name, row in zip(names, rows.to_pylist(), strict=False):
            path, score = Text(visible(row["path"])), f"{row['score']:z.4f}"
            table.add_row(Text(visible(name)), str(row["rank"]), path, score)
    if answer.queries > QUERIES:
        place = f"all in {answer.out}/{answer.name}" if answer.out else "-o OUT keeps all of them"
        table.caption = f"the first {QUERIES} of {answer.queries:,} queries; {visible(place)}"
        table.caption_justify = "left"
    return table


def _groups(answer: Duplicates) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table("group", "score", "path", "pixels", "bytes", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for number in (0, 1, 3, 4):
        table.columns[number].justify = "right"
    groups = answer.sample.rows["group"].to_numpy()
    for group in np.unique(groups)[:GROUPS]:
        rows = answer.sample.rows.filter(groups == group).to_pylist()
        for place, row in enumerate(rows[:5]):
            score = "keep" if not place else "exact" if row["exact"] else f"{row['score']:z.4f}"
            pixels = f"{row['width']}×{row['height']}"
            table.add_row("" if place else str(group), score, Text(visible(row["path"])), pixels, f"{row['bytes']:,}")
        if len(rows) > 5:
            table.add_row("", "", Text(f"and {len(rows) - 5:,} more", style="dim"), "", "")
    if answer.groups > GROUPS:
        table.caption = f"the first {GROUPS} of {answer.groups:,} groups"
        table.caption_justify = "left"
    return table
