"""The text of a list: its encoding by the mark it begins with, and CSV and TSV read by Arrow or refused by line."""

from __future__ import annotations

import codecs
import csv
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import shortened, unmarked

BLOCK = 8 << 20  # bytes
LINE = 64 << 10  # bytes: 16 times the longest path that is opened, and more than servers take for a URL
_END = "\0end\0"
_LONG_ROW = f"has more than the {BLOCK >> 20} MiB that a row may have"
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, of which its mark is a beginning
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def refused(place: str, line: int, what: str) -> WrongUse:
    """Return the error about one line of a list."""
    return WrongUse(f"Line {line:,} of the list {place} {what}: correct that line, and write the list in UTF-8.")


@contextmanager
def as_utf8(file: bytes, place: str) -> Iterator[bytes]:
    """Yield a file with the text of ``file`` in UTF-8: itself, or a temporary one where a mark names UTF-16 or UTF-32.

    Raises WrongUse with the line where the text is not what its mark says, or is UTF-16 without one.
    """
    with open(file, "rb") as opened:
        head = opened.read(64)
    mark = next((mark for mark in _MARKS if head.startswith(mark)), b"")
    pairs = len(head) // 2
    if not mark and pairs > 1 and pairs in (head[0::2].count(0), head[1::2].count(0)) and any(head):
        raise refused(place, 1, "holds a NUL byte in every character, as UTF-16 does")
    if not mark:
        yield file
        return
    with tempfile.NamedTemporaryFile(prefix="cvjobs-") as copy:
        _copy(file, mark, place, copy.write)
        copy.flush()
        yield os.fsencode(copy.name)


def _copy(file: bytes, mark: bytes, place: str, write: Callable[[bytes], object]) -> None:
    decoder = codecs.getincrementaldecoder(_MARKS[mark])()
    line = 1
    with open(file, "rb") as opened:
        opened.seek(len(mark))
        while True:
            content = opened.read(BLOCK)
            try:
                text = decoder.decode(content, final=not content)
            except UnicodeDecodeError as error:
                good = error.object[: error.start].decode(_MARKS[mark], "replace")
                name = _MARKS[mark][:6].upper()
                raise refused(place, line + good.count("\n"), f"is not {name}, as its first bytes say") from error
            write(text.encode(errors="replace"))
            line += text.count("\n")
            if not content:
                return


def lines(file: bytes, place: str) -> Iterator[bytes]:
    r"""Yield the lines of a text without their ends, which are ``\n``, ``\r\n`` or ``\r``.

    Raises WrongUse with the line that is longer than ``LINE``, of which no more is read.
    """
    with _by_any_end(file) as opened:
        if opened.read(3) != "\xef\xbb\xbf":
            opened.seek(0)
        for number, line in enumerate(iter(lambda: opened.readline(LINE + 1), ""), start=1):
            text = line.removesuffix("\n")
            if len(text) > LINE:
                raise refused(place, number, f"has more than the {LINE >> 10} KiB that a line may have")
            yield text.encode("latin-1")


def first_lines(file: bytes) -> Iterator[bytes]:
    r"""Yield the lines of a text as the first rules of listing have them: they end in ``\n``, and are of any length."""
    with open(file, "rb") as opened:
        if opened.read(3) != codecs.BOM_UTF8:
            opened.seek(0)
        yield from (line.rstrip(b"\r\n") for line in opened)


def _by_any_end(file: bytes) -> TextIO:
    return open(file, encoding="latin-1", newline=None)  # in which a character is a byte


class _LongLine(csv.Error):
    """A line of a CSV that is longer than a row may be."""


def _bounded(opened: TextIO) -> Iterator[str]:
    """Yield the lines of a CSV; raise _LongLine for one that Arrow refuses, of which no more is read."""
    for line in iter(lambda: opened.readline(2 * BLOCK), ""):
        if len(line) == 2 * BLOCK:
            raise _LongLine
        yield line


def header(file: bytes, delimiter: str, place: str) -> tuple[list[str], bool]:
    """Return the names of the columns of a CSV, and whether a row follows; raises WrongUse for one that is too long."""
    with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
        rows = csv.reader(_bounded(opened), delimiter=delimiter)
        try:
            names = next(filter(None, rows), [])
        except _LongLine:
            raise refused(place, rows.line_num + 1, _LONG_ROW) from None
        if not all(map(_is_utf8, names)):
            raise refused(place, rows.line_num, "is not UTF-8")
        try:
            return names, next(filter(None, rows), None) is not None
        except csv.Error:  # of a cell that is longer than this reader likes
            return names, True


def batches(file: bytes, delimiter: str, names: list[str], column: str, place: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a CSV, ``column`` as bytes and the others as text.

    Raises WrongUse with the line that is wrong.
    """
    types = {name: pa.binary() if name == column else pa.string() for name in names}
    try:
        with open(file, "rb") as opened:
            yield from pyarrow.csv.open_csv(
                opened,
                read_options=pyarrow.csv.ReadOptions(block_size=BLOCK, use_threads=False),
                parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(column_types=types),
            )
    except pa.ArrowInvalid as error:
        if flaw := _flaw(file, delimiter, names, column):
            raise refused(place, *flaw) from error
        raise


def unmarked_cells(batch: pa.RecordBatch, names: Collection[str]) -> pa.RecordBatch:
    """Return rows with these columns of text as they were before an export of ours marked their cells."""
    for at, name in enumerate(batch.schema.names):
        cells = batch.column(at)
        if name in names and pc.any(pc.starts_with(cells, "'")).as_py():
            texts = pa.array([unmarked(cell) for cell in cells.to_pylist()], cells.type)
            batch = batch.set_column(at, name, texts)
    return batch


def check_quotes(file: bytes, delimiter: str, names: list[str], column: str, place: str) -> None:
    """Raise WrongUse with the line of a quote that never ends: Arrow takes the rest of a list for its cell."""
    with open(file, "rb") as opened:
        quotes = sum(chunk.count(b'"') for chunk in iter(lambda: opened.read(BLOCK), b""))
    if quotes % 2 and (flaw := _flaw(file, delimiter, names, column, only_quotes=True)):
        raise refused(place, *flaw)


def _flaw(
    file: bytes, delimiter: str, names: list[str], column: str, *, only_quotes: bool = False
) -> tuple[int, str] | None:
    """Return the first line that is wrong, and what is."""
    began, longest = 1, csv.field_size_limit(2 * BLOCK)
    try:
        with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
            rows = csv.reader(_ended(_bounded(opened)), delimiter=delimiter)
            for row in rows:
                if row and row[-1].endswith(_END) and row != [_END]:
                    return began, "begins a quote that never ends"
                if row and row != [_END] and not only_quotes:
                    if len(row) != len(names):
                        cells = "cell" if len(row) == 1 else "cells"
                        return began, f"has {len(row):,} {cells} where the header has {len(names):,}"
                    if len("".join(row).encode(errors="surrogateescape")) > BLOCK:
                        return began, _LONG_ROW
                    for name, cell in zip(names, row, strict=True):
                        if name != column and not _is_utf8(cell):
                            return began, f"is not UTF-8 in the column {shortened(name)}"
                began = rows.line_num + 1
    except csv.Error:
        return began, _LONG_ROW
    finally:
        csv.field_size_limit(longest)
    return None


def _ended(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines and one more, which is a row of its own unless a quote is still open."""
    last = "\n"
    for line in lines:
        yield line
        last = line[-1:]
    yield ("" if last in "\r\n" else "\n") + _END


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def line_of(file: bytes, raw: bytes) -> int:
    """Return the number of the first line that holds these bytes, 0 where none does."""
    text = raw.decode("latin-1")
    with _by_any_end(file) as opened:
        return next((number for number, line in enumerate(opened, start=1) if text in line), 0)
