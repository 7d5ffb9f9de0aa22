"""Sources that name their images one by one: a text file of URIs, or a Parquet or CSV with a path column."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import compress, islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cvjobs.common import rules as versions
from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import shortened
from cvjobs.common.paths import meanings, path_bytes, path_text
from cvjobs.sources import list_text
from cvjobs.sources.column_hash import Hashes, carried_hash, is_text
from cvjobs.sources.confinement import Confinement
from cvjobs.sources.exclusion import EXCLUDED, Exclusion
from cvjobs.sources.left_out import EXAMPLES, LeftOut
from cvjobs.sources.locations import Absent, look, meant
from cvjobs.sources.rows import CHUNK, FAILURES, IMAGES, failure_batch, mix, path_columns, seen_columns
from cvjobs.storage.remote_files import Remote, RemoteState, is_remote

TEXTS = (".txt", ".lst")
TABLES = (".parquet", ".csv", ".tsv")
NO_LISTS = (".jsonl", ".ndjson", ".json")  # which others write, and exports of ours
NAMED = 12  # columns in a sentence
LONGEST = 200  # characters of a reason
PATH_COLUMNS = ("path", "uri", "url", "file", "filename", "image")
# What a run knows of every image by itself, and `embed` computes. Outputs and exports of ours have such columns.
NOT_CARRIED = frozenset(
    {"image_id", "bytes", "modified", "version", "content_hash", "width", "height", "frames", "embedding"}
)


class Entries(NamedTuple):
    """A batch of a list: n URIs as written, and the other columns of the same rows (a text file has none)."""

    uris: list[bytes]
    carried: pa.RecordBatch | None


class ListEntries(NamedTuple):
    """What a list named, as in a ``Listing``, and what was passed over."""

    images: pa.Table
    failures: pa.Table
    left_out: LeftOut
    not_carried: tuple[str, ...]


class _OpenedTable(NamedTuple):
    """The carried columns of a list, its rows, and its columns that are named like those of results."""

    carried: pa.Schema
    entries: Iterator[Entries]
    not_carried: tuple[str, ...] = ()


def suffix_of(name: bytes) -> str:
    """Return what the name of a file or URL ends with, from the dot on, in lower case."""
    plain = name.partition(b"?")[0] if is_remote(name) else name
    return os.path.splitext(os.fsdecode(plain))[1].lower()


def read_list(
    name: bytes,
    file: bytes,
    base: bytes,
    remote: Remote,
    on_progress: Callable[[int], None],
    *,
    rules: int,
    exclusion: Exclusion | None = None,
    confinement: Confinement | None = None,
    columns: Collection[str] | None = None,
) -> ListEntries:
    """Look at every file that a list names and may name, the first time it is named.

    ``name`` is the list's own name, ``file`` where it can be opened, ``rules`` the version of the rules of listing,
    ``columns`` those beside the path that are wanted, None for all.
    Raises WrongUse for a list that cannot be read, has no path column, or names a URL of a kind that cannot be read.
    """
    suffix, place = suffix_of(name), path_text(name)
    images: list[pa.RecordBatch] = []
    failures: list[pa.RecordBatch] = []
    left_out = LeftOut()
    seen, row = 0, 1
    try:
        with nullcontext(file) if suffix == ".parquet" else list_text.as_utf8(file, place) as plain:
            if suffix in TEXTS:
                opened = _OpenedTable(pa.schema([]), _text(plain, place, rules))
            else:
                opened = _table(plain, suffix, place, rules, columns)
            for entries in opened.entries:
                named = _wanted(entries, row, exclusion, left_out)
                found = list(look(named.uris, base, remote, confinement))
                if rules > versions.FIRST:
                    true = meant(named.uris, found, base, remote, confinement)
                    named, found = _renamed(named, found, true, exclusion, left_out)
                good, bad = _look(named, found, plain)
                images.append(good)
                failures.append(bad)
                seen += good.num_rows
                row += len(entries.uris)
                on_progress(seen)
    except (pa.ArrowException, csv.Error, UnicodeError, OSError) as error:
        reason = shortened((str(error) or type(error).__name__).splitlines()[0], LONGEST)
        raise WrongUse(f"The list {place} cannot be read ({reason}): write it anew, in UTF-8.") from error
    all_images = pa.Table.from_batches(images, schema=pa.schema([*IMAGES, *opened.carried]))
    distinct = _distinct(all_images, pa.Table.from_batches(failures, schema=FAILURES), left_out)
    return ListEntries(*distinct, left_out, opened.not_carried)


def _text(file: bytes, place: str, rules: int) -> Iterator[Entries]:
    """Yield the lines of a text file, without blank lines and those that begin with ``#``."""
    lines = list_text.lines(file, place) if rules > versions.FIRST else list_text.first_lines(file)
    uris = (line for line in lines if line.strip() and not line.startswith(b"#"))
    while batch := list(islice(uris, CHUNK)):
        yield Entries(batch, None)


def _table(file: bytes, suffix: str, place: str, rules: int, wanted: Collection[str] | None) -> _OpenedTable:
    """Open a Parquet or CSV; by the first rules all columns are wanted."""
    wanted = None if rules == versions.FIRST else wanted
    if suffix == ".parquet":
        with open(file, "rb") as opened:
            schema = pq.read_schema(opened).remove_metadata()
        column = _path_column(place, schema)
        own = _own_columns(place, schema.names, column, wanted)
        batches = _parquet(file, [column, *own])
    else:
        delimiter = "\t" if suffix == ".tsv" else ","
        names, has_rows = list_text.header(file, delimiter, place)
        # A CSV has no types. Kept as text, 007 stays 007 and the schema is the same every night.
        schema = pa.schema([(name, pa.string()) for name in names])
        column = _path_column(place, schema)
        own = _own_columns(place, names, column, wanted)
        if rules > versions.FIRST:
            list_text.check_quotes(file, delimiter, names, column, place)
        batches = list_text.batches(file, delimiter, names, column, place) if has_rows else iter(())
        if rules > versions.FIRST:
            batches = (list_text.unmarked_cells(batch, own) for batch in batches)
    ours = [name for name in dict.fromkeys(schema.names) if name in NOT_CARRIED and name != column and wanted is None]
    carried = pa.schema([schema.field(name) for name in own])
    return _OpenedTable(carried, (_split(batch, column, own) for batch in batches), tuple(ours))


def _parquet(file: bytes, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield these columns, and perhaps others."""
    with open(file, "rb") as opened:
        yield from pq.ParquetFile(opened).iter_batches(batch_size=CHUNK, columns=columns, use_threads=False)


def _path_column(place: str, schema: pa.Schema) -> str:
    """Return the name of the path column; raise WrongUse for a table without one of strings."""
    names = schema.names
    column = next((name for name in PATH_COLUMNS if name in names), None)
    if column is None:
        has = _named(names) or "nothing"
        raise WrongUse(f"{place} has no path column but {has}: name the column with the paths `path`.")
    kind = schema.field(names.index(column)).type
    if not is_text(kind.value_type if pa.types.is_dictionary(kind) else kind):
        raise WrongUse(f"The column `{column}` of {place} is {kind}: make it a column of strings.")
    return column


def _own_columns(place: str, names: Sequence[str], column: str, wanted: Collection[str] | None) -> list[str]:
    """Return the names of the columns to carry; raise WrongUse where one is there twice, or that of the paths is."""
    own = [
        name for name in names if name != column and (name in wanted if wanted is not None else name not in NOT_CARRIED)
    ]
    counts = Counter(names)
    twice = sorted({name for name in (column, *own) if counts[name] > 1})
    if twice:
        raise WrongUse(f"The columns {_named(twice)} of {place} are there twice: rename them.")
    return own


def _named(columns: list[str]) -> str:
    shown = ", ".join(shortened(name) for name in columns[:NAMED])
    return f"{shown} and {len(columns) - NAMED:,} more" if len(columns) > NAMED else shown


def _split(batch: pa.RecordBatch, column: str, own: list[str]) -> Entries:
    """Part a batch of a table into its path column and the columns of these names."""
    paths = batch.column(column)
    if pa.types.is_dictionary(paths.type):
        paths = paths.dictionary_decode()
    return Entries(paths.cast(pa.large_binary()).fill_null(b"").to_pylist(), batch.select(own))


def _wanted(entries: Entries, row: int, exclusion: Exclusion | None, left_out: LeftOut) -> Entries:
    """Drop the rows without a path, and those that are excluded; the first row has the number ``row``."""
    if exclusion is None and all(entries.uris):
        return entries
    keep = [bool(uri) for uri in entries.uris]
    for i, uri in enumerate(entries.uris):
        if not uri:
            left_out.add("no path", b"row %d" % (row + i))
        elif exclusion is not None and exclusion.covers_path(uri):
            left_out.add(EXCLUDED, uri)
            keep[i] = False
    return _kept(entries, keep)


def _kept(entries: Entries, keep: list[bool]) -> Entries:
    carried = None if entries.carried is None else entries.carried.filter(pa.array(keep))
    return Entries(list(compress(entries.uris, keep)), carried)


def _renamed(
    entries: Entries,
    found: list[RemoteState | Absent],
    true: Mapping[int, tuple[bytes, RemoteState]],
    exclusion: Exclusion | None,
    left_out: LeftOut,
) -> tuple[Entries, list[RemoteState | Absent]]:
    """Give entries, and what was found of each, their ``true`` names, by which they may be excluded, too."""
    if not true:
        return entries, found
    uris, found, keep = list(entries.uris), list(found), [True] * len(found)
    for at, (name, about) in true.items():
        uris[at], found[at] = name, about
        if exclusion is not None and exclusion.covers_path(name):
            left_out.add(EXCLUDED, name)
            keep[at] = False
    return _kept(Entries(uris, entries.carried), keep), list(compress(found, keep))


def _look(entries: Entries, seen: Iterable[RemoteState | Absent], file: bytes) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Return the rows of the files that are there, with the carried columns, and the rows of the others.

    ``file`` is the list's own, for the lines of names that seem to be written in another encoding.
    """
    paths: list[bytes] = []
    about: list[RemoteState] = []
    failed: list[tuple[bytes, str, str]] = []
    there = np.ones(len(entries.uris), bool)
    for i, (uri, found) in enumerate(zip(entries.uris, seen, strict=True)):
        if isinstance(found, RemoteState):
            paths.append(uri)
            about.append(found)
        else:
            failed.append((uri, found.code, _detail(uri, found, file if len(failed) < EXAMPLES else b"")))
            there[i] = False
    path, ids = path_columns(paths)
    size, modified, version = seen_columns(about)
    others: list[pa.Array] = []
    schema = IMAGES
    if entries.carried is not None and entries.carried.num_columns:
        carried = entries.carried.filter(pa.array(there))
        version = mix(version ^ _carried_hash(carried))
        others = carried.columns
        schema = pa.schema([*IMAGES, *carried.schema])
    good = pa.RecordBatch.from_arrays([path, ids, size, modified, pa.array(version), *others], schema=schema)
    return good, failure_batch(*(zip(*failed, strict=True) if failed else ((), (), ())))


def _detail(uri: bytes, absent: Absent, file: bytes) -> str:
    """Return why a file is not there; of a name that is not UTF-8 with its line where the list's ``file`` is given."""
    if absent.code == "list_vanished" and "\\x" in path_text(uri) and not is_remote(uri):
        if meanings(uri):
            return absent.detail
        if b"\\" in uri:
            return f"{absent.detail}; folders are parted by / and not by a backslash"
        line = list_text.line_of(file, uri) if file else 0
        return f"{absent.detail}; {f'line {line:,} of the list' if line else 'its name'} is not UTF-8"
    return absent.detail


def _carried_hash(carried: pa.RecordBatch) -> Hashes:
    try:
        return carried_hash(carried)
    except TypeError as error:
        raise WrongUse(
            f"The list's column {shortened(str(error), LONGEST)} cannot be carried into the results: leave it out."
        ) from None


def _distinct(images: pa.Table, failures: pa.Table, left_out: LeftOut) -> tuple[pa.Table, pa.Table]:
    """Keep the first row of each image, and count the others."""
    total = images.num_rows + failures.num_rows
    ids = pa.chunked_array([*images["image_id"].chunks, *failures["image_id"].chunks], pa.binary(16))
    rows = pa.table({"image_id": ids, "row": np.arange(total)}).group_by("image_id").aggregate([("row", "min")])
    if rows.num_rows == total:
        return images, failures
    keep = np.zeros(total, bool)
    keep[rows["row_min"].to_numpy()] = True
    split = images.num_rows
    again = pa.concat_tables([table.select(["path"]) for table in (images, failures)]).filter(pa.array(~keep))
    left_out.extend("duplicate", again.num_rows, map(path_bytes, again["path"].slice(0, EXAMPLES).to_pylist()))
    return images.filter(pa.array(keep[:split])), failures.filter(pa.array(keep[split:]))
