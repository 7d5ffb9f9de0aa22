"""Tables of images and their labels, as people and other commands of ours write them: CSV, Parquet, JSON lines."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cvjobs.common import class_labels
from cvjobs.common.formatting import unmarked
from cvjobs.evaluation.ground_truth.types import BadTruth
from cvjobs.sources.lists import PATH_COLUMNS

SEPARATED = (".csv", ".tsv")
LINES = (".jsonl", ".ndjson")
ENDINGS = (*SEPARATED, ".parquet", *LINES)

Line = tuple[int, dict[str, Any]]


@dataclass(frozen=True)
class LabelTable:
    """The columns of a file, and its rows with the number of each: lines of a text, else rows from 1."""

    path: Path
    columns: list[str]
    rows: list[Line]

    def named(self, *choices: str) -> str:
        """Return the first of these columns that there is, empty for none."""
        return next((name for name in choices if name in self.columns), "")

    @property
    def path_column(self) -> str:
        """The column of the paths, empty for none."""
        return self.named(*PATH_COLUMNS)

    def label(self, line: int, cell: Any, *, several: bool = False) -> str:
        """Return the label of a cell, empty for none, of a column for one or for ``several``; raises BadTruth."""
        try:
            return class_labels.label(class_labels.several(cell) if several else cell)
        except TypeError:
            raise BadTruth(self.path, line, "has several labels: one image has one here") from None


def fits(path: Path) -> bool:
    """Return whether a place looks like such a file."""
    return path.is_file() and path.suffix.lower() in ENDINGS


def read(path: Path) -> LabelTable:
    """Return the rows of a file, without empty lines; raises BadTruth that names the line."""
    try:
        ending = path.suffix.lower()
        if ending == ".parquet":
            return _parquet(path)
        text = _text(path)
        return _json_lines(path, text) if ending in LINES else _separated(path, text)
    except OSError as error:
        raise BadTruth(path, None, f"cannot be read ({error.strerror or type(error).__name__})") from error


def _text(path: Path) -> str:
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = None if wide else content.count(b"\n", 0, error.start) + 1
        raise BadTruth(path, line, "is no UTF-8 text") from None


def _separated(path: Path, text: str) -> LabelTable:
    first = text.partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in first and "," not in first else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        columns = [cell.strip() for cell in next(reader, [])]
        rows = [(reader.line_num, _cells(columns, row)) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise BadTruth(path, reader.line_num, f"is no CSV ({error})") from error
    return LabelTable(path, columns, rows)


def _cells(columns: list[str], row: list[str]) -> dict[str, Any]:
    """Return a row by column, the first of those with one name; short rows are filled up."""
    cells = [unmarked(cell.strip()) for cell in row] + [""] * (len(columns) - len(row))
    return {columns[at]: cells[at] for at in range(len(columns) - 1, -1, -1)}


def _parquet(path: Path) -> LabelTable:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            table = file.read(columns=[name for name in dict.fromkeys(names) if name not in _UNREAD])
            return LabelTable(path, names, list(enumerate(table.to_pylist(), 1)))
    except (pa.ArrowException, ValueError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise BadTruth(path, None, f"is no Parquet file that can be read ({reason})") from error


_UNREAD = {"embedding", "class_map"}  # of an output: large, and no label


def _json_lines(path: Path, text: str) -> LabelTable:
    rows = list(_records(path, text))
    return LabelTable(path, list(dict.fromkeys(name for _, row in rows for name in row)), rows)


def _records(path: Path, text: str) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                raise BadTruth(path, number, "is no JSON") from None
            if not isinstance(record, dict):
                raise BadTruth(path, number, "is no JSON object with a path and a label")
            yield number, record
