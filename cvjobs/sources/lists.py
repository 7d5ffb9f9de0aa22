"""Sources that name their images one by one: a text file of URIs, or a Parquet or CSV with a path column."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import shortened
from cvjobs.common.paths import path_text
from cvjobs.sources.column_hash import Hashes, carried_hash, is_text
from cvjobs.sources.confinement import Confinement
from cvjobs.sources.locations import Absent, look
from cvjobs.sources.rows import CHUNK, FAILURES, IMAGES, failure_batch, mix, path_columns, seen_columns
from cvjobs.storage.remote_files import Remote, RemoteState, is_remote

TEXTS = (".txt", ".lst")
TABLES = (".parquet", ".csv", ".tsv")
NAMED = 12  # columns in a sentence
LONGEST = 200  # characters of a reason
PATH_COLUMNS = ("path", "uri", "url", "file", "filename", "image")
RESULT_COLUMNS = frozenset(
    {"path", "image_id", "bytes", "modified", "version", "content_hash", "width", "height", "frames", "embedding"}
)


class Entries(NamedTuple):
    """A batch of a list: n URIs as written, and the other columns of the same rows (a text file has none)."""

    uris: list[bytes]
    carried: pa.RecordBatch | None


class ListEntries(NamedTuple):
    """What a list named: ``images`` and ``failures`` as in a ``Listing``, and what was skipped, by reason."""

    images: pa.Table
    failures: pa.Table
    skipped: dict[str, int]


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
    confinement: Confinement | None = None,
) -> ListEntries:
    """Look at every file that a list names and may name, the first time it is named.

    ``name`` is the list's own name, ``file`` where it can be opened. Raises WrongUse for a list that cannot be
    read, has no path column, or names a URL of a kind that cannot be read.
    """
    suffix = suffix_of(name)
    images: list[pa.RecordBatch] = []
    failures: list[pa.RecordBatch] = []
    skipped: Counter[str] = Counter()
    seen = 0
    try:
        schema, batches = (pa.schema([]), _text(file)) if suffix in TEXTS else _table(file, suffix, path_text(name))
        for entries in batches:
            named = _without_blanks(entries)
            skipped["no path"] += len(entries.uris) - len(named.uris)
            good, bad = _look(named, look(named.uris, base, remote, confinement))
            images.append(good)
            failures.append(bad)
            seen += good.num_rows
            on_progress(seen)
    except (pa.ArrowException, csv.Error, UnicodeError, OSError) as error:
        reason = shortened((str(error) or type(error).__name__).splitlines()[0], LONGEST)
        raise WrongUse(f"The list {path_text(name)} cannot be read ({reason}): write it anew, in UTF-8.") from error
    all_images = pa.Table.from_batches(images, schema=pa.schema([*IMAGES, *schema]))
    found, duplicates = _distinct(all_images, pa.Table.from_batches(failures, schema=FAILURES))
    skipped["duplicate"] += duplicates
    return ListEntries(*found, dict(+skipped))


def _text(file: bytes) -> Iterator[Entries]:
    """Yield the lines of a text file, without blank lines and those that begin with ``#``."""
    with open(file, "rb") as lines:
        if lines.read(3) != b"\xef\xbb\xbf":
            lines.seek(0)
        stripped = (line.rstrip(b"\r\n") for line in lines)
        uris = (line for line in stripped if line.strip() and not line.startswith(b"#"))
        while batch := list(islice(uris, CHUNK)):
            yield Entries(batch, None)


def _table(file: bytes, suffix: str, place: str) -> tuple[pa.Schema, Iterator[Entries]]:
    """Return the carried columns of a Parquet or CSV, and its rows."""
    if suffix == ".parquet":
        with open(file, "rb") as opened:
            schema = pq.read_schema(opened).remove_metadata()
        column = _path_column(place, schema)
        batches = _parquet(file)
    else:
        delimiter = "\t" if suffix == ".tsv" else ","
        with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
            names = next(csv.reader(opened, delimiter=delimiter), [])
        # A CSV has no types. Kept as text, 007 stays 007 and the schema is the same every night.
        schema = pa.schema([(name, pa.string()) for name in names])
        column = _path_column(place, schema)
        batches = _csv(file, delimiter, names, column)
    carried = schema.remove(schema.get_field_index(column))
    return carried, (_split(batch, column) for batch in batches)


def _parquet(file: bytes) -> Iterator[pa.RecordBatch]:
    with open(file, "rb") as opened:
        yield from pq.ParquetFile(opened).iter_batches(batch_size=CHUNK, use_threads=False)


def _csv(file: bytes, delimiter: str, names: list[str], column: str) -> Iterator[pa.RecordBatch]:
    types = {name: pa.binary() if name == column else pa.string() for name in names}
    with open(file, "rb") as opened:
        yield from pyarrow.csv.open_csv(
            opened,
            read_options=pyarrow.csv.ReadOptions(block_size=8 << 20, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(column_types=types),
        )


def _path_column(place: str, schema: pa.Schema) -> str:
    """Return the name of the path column; raise WrongUse for a table that cannot be used as a list."""
    names = schema.names
    column = next((name for name in PATH_COLUMNS if name in names), None)
    if column is None:
        has = _named(names) or "nothing"
        raise WrongUse(f"{place} has no path column but {has}: name the column with the paths `path`.")
    kind = schema.field(names.index(column)).type
    if not is_text(kind.value_type if pa.types.is_dictionary(kind) else kind):
        raise WrongUse(f"The column `{column}` of {place} is {kind}: make it a column of strings.")
    taken = sorted({name for name in names if names.count(name) > 1 or (name != column and name in RESULT_COLUMNS)})
    if taken:
        raise WrongUse(f"The columns {_named(taken)} of {place} would be in the results twice: rename them.")
    return column


def _named(columns: list[str]) -> str:
    shown = ", ".join(shortened(name) for name in columns[:NAMED])
    return f"{shown} and {len(columns) - NAMED:,} more" if len(columns) > NAMED else shown


def _split(batch: pa.RecordBatch, column: str) -> Entries:
    """Part a batch of a table into its path column and the others."""
    paths = batch.column(column)
    if pa.types.is_dictionary(paths.type):
        paths = paths.dictionary_decode()
    return Entries(paths.cast(pa.large_binary()).fill_null(b"").to_pylist(), batch.drop_columns([column]))


def _without_blanks(entries: Entries) -> Entries:
    """Drop the rows without a path."""
    if all(entries.uris):
        return entries
    uris = [uri for uri in entries.uris if uri]
    mask = pa.array([bool(uri) for uri in entries.uris])
    return Entries(uris, None if entries.carried is None else entries.carried.filter(mask))


def _look(entries: Entries, seen: Iterable[RemoteState | Absent]) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Return the rows of the files that are there, with the carried columns, and the rows of the others."""
    paths: list[bytes] = []
    about: list[RemoteState] = []
    failed: list[tuple[bytes, str, str]] = []
    there = np.ones(len(entries.uris), bool)
    for i, (uri, found) in enumerate(zip(entries.uris, seen, strict=True)):
        if isinstance(found, RemoteState):
            paths.append(uri)
            about.append(found)
        else:
            failed.append((uri, found.code, found.detail))
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


def _carried_hash(carried: pa.RecordBatch) -> Hashes:
    try:
        return carried_hash(carried)
    except TypeError as error:
        raise WrongUse(
            f"The list's column {shortened(str(error), LONGEST)} cannot be carried into the results: leave it out."
        ) from None


def _distinct(images: pa.Table, failures: pa.Table) -> tuple[tuple[pa.Table, pa.Table], int]:
    """Keep the first row of each image, and count the others."""
    total = images.num_rows + failures.num_rows
    ids = pa.chunked_array([*images["image_id"].chunks, *failures["image_id"].chunks], pa.binary(16))
    rows = pa.table({"image_id": ids, "row": np.arange(total)}).group_by("image_id").aggregate([("row", "min")])
    if rows.num_rows == total:
        return (images, failures), 0
    keep = np.zeros(total, bool)
    keep[rows["row_min"].to_numpy()] = True
    split = images.num_rows
    kept = images.filter(pa.array(keep[:split])), failures.filter(pa.array(keep[split:]))
    return kept, total - rows.num_rows
