"""Writing one part: complete result and error files first, and last the record that names them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from cvjobs.dataset import schema as dataset_schema
from cvjobs.dataset import sealed, typed
from cvjobs.dataset.sealed_table import SealedWriter
from cvjobs.storage.store import Store, in_flight

ROW_GROUP = 16_384


@dataclass(frozen=True, kw_only=True)
class File:
    """A published Parquet file of rows."""

    name: str
    rows: int
    bytes: int
    sha256: str

    @classmethod
    def load(cls, record: dict[str, Any]) -> File:
        """Return the file that a JSON record describes; raises KeyError or TypeError where that makes no sense."""
        found = typed.made(cls, {name: record[name] for name in ("name", "rows", "bytes", "sha256")})
        typed.plain(found.name)
        if min(found.rows, found.bytes) < 0:
            raise TypeError("no length of a file")
        return found


@dataclass(frozen=True, kw_only=True)
class Part:
    """A committed part: its files, and under which run, overwrite epoch and fingerprint it was computed.

    ``listed`` is when that run began to list the source (ns since 1970): an image modified later than 2 s before
    may have changed again without its time stamp showing it.
    """

    name: str
    run: str
    epoch: int
    fingerprint: str
    listed: int
    created: int
    results: File | None
    errors: File | None

    @property
    def rows(self) -> int:
        """How many images it has a row for."""
        return sum(file.rows for file in (self.results, self.errors) if file)

    @classmethod
    def load(cls, record: dict[str, Any]) -> Part:
        """Return the part that a JSON record describes; raises KeyError or TypeError where that makes no sense."""
        values = {field.name: record[field.name] for field in fields(cls)}
        files = {name: File.load(values[name]) if values[name] else None for name in ("results", "errors")}
        found = typed.made(cls, {**values, **files})
        if "/" in typed.plain(found.name):
            raise TypeError("no name of a part")
        return found


@dataclass(frozen=True, kw_only=True)
class Author:
    """Who writes parts: the run, its overwrite epoch and fingerprint digest, and when it began to list."""

    run: str
    epoch: int
    fingerprint: str
    listed: int


def write_table(store: Store, name: str, schema: pa.Schema, tables: Iterable[pa.Table], *, seal: bool = False) -> File:
    """Publish rows as one Parquet file: zstd for the keys, floats as they are, no dictionaries.

    Pages carry checksums, so that a merge never copies a flipped bit into a file with a good sha256. ``seal`` is for
    a file whose sha256 no record names.
    """
    rows = 0
    kind = SealedWriter if seal else pq.ParquetWriter

    def fill(file: BinaryIO) -> None:
        nonlocal rows
        with kind(
            file,
            schema,
            compression={f.name: "NONE" if pa.types.is_fixed_size_list(f.type) else "ZSTD" for f in schema},
            use_dictionary=False,
            write_page_checksum=True,
            write_statistics=[f.name for f in schema if not pa.types.is_nested(f.type)],
        ) as writer:
            for table in tables:
                if table.num_rows:
                    writer.write_table(table, row_group_size=ROW_GROUP)
                    rows += table.num_rows

    written = store.write(name, fill)
    return File(name=name, rows=rows, bytes=written.bytes, sha256=written.sha256)


def commit(store: Store, author: Author, results: pa.Table | None, errors: pa.Table | None) -> Part:
    """Make rows durable: after this returns a kill at any moment keeps them.

    Raises JobFailed where the output cannot be written. The record is written last, so a part without one is
    garbage that the merge of a later run removes.
    """
    name = f"{author.run}-{secrets.token_hex(8)}"
    part = Part(
        name=name,
        run=author.run,
        epoch=author.epoch,
        fingerprint=author.fingerprint,
        listed=author.listed,
        created=time.time_ns(),
        results=write_table(store, f"{dataset_schema.DATA}/part-{name}.parquet", results.schema, [results])
        if results is not None and results.num_rows
        else None,
        errors=write_table(store, f"{dataset_schema.ERRORS}/part-{name}.parquet", dataset_schema.ERROR_SCHEMA, [errors])
        if errors is not None and errors.num_rows
        else None,
    )
    store.create(f"{dataset_schema.PARTS}/{name}.json", sealed.pack(_record(part)))
    return part


def _record(part: Part) -> dict[str, Any]:
    record = dict(vars(part))
    record["results"] = dict(vars(part.results)) if part.results else None
    record["errors"] = dict(vars(part.errors)) if part.errors else None
    return record


def committed(store: Store) -> list[Part]:
    """Return the parts that have a record, oldest first; one whose files are gone or cut short is left out."""

    def look(entry: str) -> Part | None:
        try:
            return Part.load(sealed.unpack(store.read(f"{dataset_schema.PARTS}/{entry}")) or {})
        except (FileNotFoundError, KeyError, TypeError):
            return None  # gone meanwhile, cut short or damaged: its images are computed again

    entries = [
        name for name in store.names(dataset_schema.PARTS) if not name.startswith(".") and name.endswith(".json")
    ]
    found = [part for part in in_flight(store, look, entries) if part]
    if not found:
        return []
    # Looked at after the records: a file is there before its record is.
    sizes = {
        f"{folder}/{n}": s
        for folder in (dataset_schema.DATA, dataset_schema.ERRORS)
        for n, s in store.sizes(folder).items()
    }
    whole = [p for p in found if all(sizes.get(f.name) == f.bytes for f in (p.results, p.errors) if f)]
    return sorted(whole, key=lambda part: (part.created, part.name))
