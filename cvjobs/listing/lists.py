"""Sources that name their images one by one: a text file of URIs, or a Parquet or CSV with a path column."""

from __future__ import annotations

import csv
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from cvjobs.errors import WrongUse
from cvjobs.listing.carried import Hashes, carried_hash, is_text
from cvjobs.listing.folder import kind_of
from cvjobs.listing.rows import CHUNK, FAILURES, IMAGES, failure_batch, failure_code, mix, path_columns, stat_columns
from cvjobs.paths import path_text

TEXTS = (".txt", ".lst")
TABLES = (".parquet", ".csv", ".tsv")
PATH_COLUMNS = ("path", "uri", "url", "file", "filename", "image")
RESULT_COLUMNS = frozenset(
    {"path", "image_id", "bytes", "modified", "version", "content_hash", "width", "height", "frames", "embedding"}
)
_SCHEME = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://")


class Entries(NamedTuple):
    """A batch of a list: n URIs as written, and the other columns of the same rows (a text file has none)."""

    uris: list[bytes]
    carried: pa.RecordBatch | None


class Found(NamedTuple):
    """What a list named: ``images`` and ``failures`` as in a ``Listing``, and what was skipped, by reason."""

    images: pa.Table
    failures: pa.Table
    skipped: dict[str, int]


def locate(uri: bytes, base: bytes) -> bytes:
    """Return the file that a URI or path means, a relative one below ``base``.

    Raises WrongUse for what is neither a local path nor ``file://`` on this machine.
    """
    found = _SCHEME.match(uri)
    if found is None:
        return uri if uri[:1] == b"/" else base + b"/" + uri
    host, slash, path = uri[found.end() :].partition(b"/")
    if found[1].lower() == b"file" and host in (b"", b"localhost") and slash:
        return unquote_to_bytes(slash + path)
    raise WrongUse(f"{path_text(found[0] + host)} cannot be read: give local paths or file:///absolute/path.")


def read_list(file: bytes, base: bytes, on_progress: Callable[[int], None]) -> Found:
    """Look at every file that a list names, the first time it is named.

    Raises WrongUse for a list that cannot be read, has no path column or names what is no local file.
    """
    suffix = os.path.splitext(os.fsdecode(file))[1].lower()
    images: list[pa.RecordBatch] = []
    failures: list[pa.RecordBatch] = []
    skipped: Counter[str] = Counter()
    seen = 0
    try:
        schema, batches = (pa.schema([]), _text(file)) if suffix in TEXTS else _table(file, suffix)
        for entries in batches:
            named = _without_blanks(entries)
            skipped["no path"] += len(entries.uris) - len(named.uris)
            good, bad = _look(named, base)
            images.append(good)
            failures.append(bad)
            seen += good.num_rows
            on_progress(seen)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise WrongUse(f"The list {path_text(file)} cannot be read ({reason}): write it anew, in UTF-8.") from error
    all_images = pa.Table.from_batches(images, schema=pa.schema([*IMAGES, *schema]))
    found, duplicates = _distinct(all_images, pa.Table.from_batches(failures, schema=FAILURES))
    skipped["duplicate"] += duplicates
    return Found(*found, dict(+skipped))


def _text(file: bytes) -> Iterator[Entries]:
    """Yield the lines of a text file, without blank lines and those that begin with ``#``."""
    with open(file, "rb") as lines:
        if lines.read(3) != b"\xef\xbb\xbf":
            lines.seek(0)
        stripped = (line.rstrip(b"\r\n") for line in lines)
        uris = (line for line in stripped if line.strip() and not line.startswith(b"#"))
        while batch := list(islice(uris, CHUNK)):
            yield Entries(batch, None)


def _table(file: bytes, suffix: str) -> tuple[pa.Schema, Iterator[Entries]]:
    """Return the carried columns of a Parquet or CSV, and its rows."""
    if suffix == ".parquet":
        with open(file, "rb") as opened:
            schema = pq.read_schema(opened).remove_metadata()
        batches = _parquet(file)
    else:
        delimiter = "\t" if suffix == ".tsv" else ","
        with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
            names = next(csv.reader(opened, delimiter=delimiter), [])
        # A CSV has no types. Kept as text, 007 stays 007 and the schema is the same every night.
        schema = pa.schema([(name, pa.string()) for name in names])
        batches = _csv(file, delimiter, names)
    column = _path_column(file, schema)
    carried = schema.remove(schema.get_field_index(column))
    return carried, (_split(batch, column) for batch in batches)


def _parquet(file: bytes) -> Iterator[pa.RecordBatch]:
    with open(file, "rb") as opened:
        yield from pq.ParquetFile(opened).iter_batches(batch_size=CHUNK, use_threads=False)


def _csv(file: bytes, delimiter: str, names: list[str]) -> Iterator[pa.RecordBatch]:
    types = {name: pa.binary() if name in PATH_COLUMNS else pa.string() for name in names}
    with open(file, "rb") as opened:
        yield from pyarrow.csv.open_csv(
            opened,
            read_options=pyarrow.csv.ReadOptions(block_size=8 << 20, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(column_types=types),
        )


def _path_column(file: bytes, schema: pa.Schema) -> str:
    """Return the name of the path column; raise WrongUse for a table that cannot be used as a list."""
    names = schema.names
    place = path_text(file)
    column = next((name for name in PATH_COLUMNS if name in names), None)
    if column is None:
        has = ", ".join(names) or "nothing"
        raise WrongUse(f"{place} has no path column but {has}: name the column with the paths `path`.")
    kind = schema.field(names.index(column)).type
    if not is_text(kind.value_type if pa.types.is_dictionary(kind) else kind):
        raise WrongUse(f"The column `{column}` of {place} is {kind}: make it a column of strings.")
    taken = sorted({name for name in names if names.count(name) > 1 or (name != column and name in RESULT_COLUMNS)})
    if taken:
        raise WrongUse(f"The columns {', '.join(taken)} of {place} would be in the results twice: rename them.")
    return column


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


def _look(entries: Entries, base: bytes) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Return the rows of the files that are there, with the carried columns, and the rows of the others."""
    paths: list[bytes] = []
    sizes: list[int] = []
    times: list[int] = []
    failed: list[tuple[bytes, str, str]] = []
    there = np.ones(len(entries.uris), bool)
    for i, uri in enumerate(entries.uris):
        try:
            status = os.stat(locate(uri, base))
            if stat.S_ISREG(status.st_mode):
                paths.append(uri)
                sizes.append(status.st_size)
                times.append(status.st_mtime_ns)
                continue
            kind = "folder" if stat.S_ISDIR(status.st_mode) else kind_of(status.st_mode)
            failed.append((uri, "not_an_image", f"is a {kind}"))
        except OSError as error:
            failed.append((uri, failure_code(error), f"{error.strerror}"))
        except ValueError:
            failed.append((uri, "list_vanished", "no file name holds a NUL byte"))
        there[i] = False
    path, ids = path_columns(paths)
    size, modified, version = stat_columns(sizes, times)
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
        raise WrongUse(f"The list's column {error} cannot be carried into the results: leave it out.") from None


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
