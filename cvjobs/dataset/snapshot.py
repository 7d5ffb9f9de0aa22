"""Snapshots: which files make up an output, published by put-if-absent of the next version number."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cvjobs.common import rules
from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.common.formatting import counted
from cvjobs.dataset import schema, typed, versions
from cvjobs.dataset.parts import File, committed
from cvjobs.storage.local_store import TEMPORARY
from cvjobs.storage.store import Store

Ints = npt.NDArray[np.int64]
BLOCK = 4 << 20
GONE = "it is gone"
_IMAGE_ID = re.compile("[0-9a-f]{32}")
_KEYS = {(field.name, field.type) for field in schema.KEYS}


class DamagedOutput(JobFailed):
    """A file of the output is gone, or is not what was written."""

    def __init__(self, store: Store, file: File, reason: object) -> None:
        self.reason = " ".join(str(reason).split())[:200]
        gone = self.reason == GONE
        super().__init__(
            f"{store.place}/{file.name} {'is gone: ' if gone else f'is damaged ({self.reason}): delete it, and '}"
            f"the same command computes its {counted(file.rows, 'images')} again."
        )


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One published state of an output; ``version`` 0 is the empty state before the first one.

    ``want`` digests which images in which version the rows stand for; ``recent`` are ids (hex) whose files were
    too fresh when they were read to trust their time stamp; ``facts`` are what the fingerprint is made of;
    ``folded`` are the parts whose rows this version decided on; ``listing`` is the file of what its run wanted, None
    in snapshots of earlier versions; ``listing_rules`` is the version of the rules by which its source is listed.
    """

    version: int
    run: str = ""
    epoch: int = 0
    fingerprint: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    resolved: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    root: str = ""
    listing_rules: int = rules.FIRST
    want: str = ""
    wanted: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    results: tuple[File, ...] = ()
    errors: tuple[File, ...] = ()
    recent: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    listing: File | None = None
    created: float = 0.0
    libraries: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> int:
        """Rows in the results."""
        return sum(f.rows for f in self.results)

    @property
    def failed(self) -> int:
        """Rows in the errors."""
        return sum(f.rows for f in self.errors)

    def record(self) -> dict[str, Any]:
        """Return the snapshot as JSON types."""
        return {
            **vars(self),
            "results": [vars(f) for f in self.results],
            "errors": [vars(f) for f in self.errors],
            "listing": vars(self.listing) if self.listing else None,
        }

    @classmethod
    def load(cls, record: dict[str, Any]) -> Snapshot:
        """Return the snapshot that a JSON record describes; raises KeyError or TypeError where that makes no sense."""
        found = typed.made(
            cls,
            {
                **record,
                "results": tuple(File.load(f) for f in record["results"]),
                "errors": tuple(File.load(f) for f in record["errors"]),
                "recent": tuple(record["recent"]),
                "folded": tuple(record["folded"]),
                "listing": File.load(record["listing"]) if record.get("listing") else None,
            },
        )
        if found.run:
            typed.plain(found.run)
        if not all(_IMAGE_ID.fullmatch(one) for one in found.recent):
            raise TypeError("no id of an image")
        return found


def latest(store: Store) -> Snapshot:
    """Return the newest snapshot, the empty one for a new output.

    Raises versions.DamagedVersion where neither it nor its copy can be read, WrongUse where the folder holds an index.
    """
    try:
        found = versions.newest(store)
    except versions.DamagedVersion:
        # Where a kill cut the first one short while it was created, the parts that it was made of are there.
        if versions.head(store) > 1 or (orphans(store) and not committed(store)):
            raise
        found = None
    if found is None:
        return Snapshot(version=0)
    if "factory" in found.record:
        raise WrongUse(f"{store.place} holds an index, no images' results: name the -o folder of another command.")
    try:
        return Snapshot.load(found.record)
    except (KeyError, TypeError, AttributeError) as error:
        raise versions.damaged(store, found.number) from error


def readable(store: Store) -> int:
    """Return the version of the newest snapshot, 0 where there is none or it is damaged."""
    try:
        return latest(store).version
    except versions.DamagedVersion:
        return 0


def orphans(store: Store) -> list[str]:
    """Return the files of rows that no part's record names: a snapshot's, or what a kill left without a record."""
    named = {file.name for part in committed(store) for file in (part.results, part.errors) if file}
    there = [f"{folder}/{name}" for folder in (schema.DATA, schema.ERRORS) for name in store.names(folder)]
    return [name for name in there if name.endswith(".parquet") and TEMPORARY not in name and name not in named]


def publish(store: Store, snapshot: Snapshot) -> bool:
    """Publish by put-if-absent; False where another run was first, and then nothing may be deleted."""
    return versions.publish(store, snapshot.version, snapshot.record())


def read_table(store: Store, file: File, columns: list[str] | None = None) -> pa.Table:
    """Return a file's rows (some of its columns); raises DamagedOutput, or JobFailed where the store fails."""
    with _opened(store, file) as parquet:
        return parquet.read(columns=columns, use_threads=False)


def read_batches(store: Store, file: File, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield a file's rows (some of its columns), one row group at a time; raises as ``read_table``."""
    with _opened(store, file) as parquet:
        for group in range(parquet.num_row_groups):
            yield parquet.read_row_group(group, columns=columns, use_threads=False)


def read_checked(store: Store, file: File, small: int) -> Iterator[pa.Table]:
    """Yield a file's rows as ``read_batches``, once its sha256 is what was written.

    A file of up to ``small`` bytes is read once, a larger one twice.
    """
    if file.bytes > small:
        check(store, file)
        yield from read_batches(store, file)
        return
    try:
        content = store.read(file.name)
    except FileNotFoundError as error:
        raise DamagedOutput(store, file, GONE) from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise DamagedOutput(store, file, "its sha256 differs")
    with pq.ParquetFile(pa.BufferReader(content)) as parquet:
        for group in range(parquet.num_row_groups):
            yield parquet.read_row_group(group, use_threads=False)


def check(store: Store, file: File) -> None:
    """Raise DamagedOutput where a file is gone or not what was written."""
    digest = hashlib.sha256()
    try:
        with store.open(file.name) as handle:
            while block := handle.read(BLOCK):
                digest.update(block)
    except FileNotFoundError as error:
        raise DamagedOutput(store, file, GONE) from error
    except OSError as error:
        raise _unreadable(store, file, error) from error
    if digest.hexdigest() != file.sha256:
        raise DamagedOutput(store, file, "its sha256 differs")


def read_groups(
    store: Store, file: File, columns: list[str] | None, rows: Ints | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """Yield (first row, some columns) of each row group, or only of those that hold one of ``rows`` (sorted)."""
    with _opened(store, file) as parquet:
        first = 0
        for group in range(parquet.num_row_groups):
            end = first + parquet.metadata.row_group(group).num_rows
            if rows is None or np.searchsorted(rows, first) < np.searchsorted(rows, end):
                yield first, parquet.read_row_group(group, columns=columns, use_threads=False)
            first = end


def read_schema(store: Store, file: File) -> pa.Schema:
    """Return the columns of a file; raises as ``read_table``."""
    with _opened(store, file) as parquet:
        return parquet.schema_arrow


@contextmanager
def _opened(store: Store, file: File) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file, and tell a file that is not what was written from a store that cannot be read.

    It is read in this thread: a thread of Arrow that lets go of a Python file while the interpreter ends aborts
    the process.
    """
    try:
        with store.open(file.name) as handle:
            parquet = pq.ParquetFile(handle, page_checksum_verification=True)
            names = parquet.schema_arrow.names
            if len(set(names)) < len(names):  # earlier versions let a list's own column have a result's name
                raise DamagedOutput(store, file, "two of its columns have one name")
            if not {(field.name, field.type) for field in parquet.schema_arrow} >= _KEYS:
                raise DamagedOutput(store, file, "it has not the columns of all outputs")
            yield parquet
    except pa.ArrowMemoryError:
        raise
    except FileNotFoundError as error:
        raise DamagedOutput(store, file, GONE) from error
    except (pa.ArrowException, ValueError, KeyError, OverflowError) as error:  # a damaged footer makes Arrow raise each
        raise DamagedOutput(store, file, error) from error
    except OSError as error:
        if error.errno is None:  # Arrow's own: the content makes no sense
            raise DamagedOutput(store, file, error) from error
        raise _unreadable(store, file, error) from error


def _unreadable(store: Store, file: File, error: OSError) -> JobFailed:
    reason = f"{store.place}/{file.name} cannot be read ({error.strerror})"
    return JobFailed(f"{reason}: when it works again, run the same command to continue.")


def now() -> float:
    """Return the time stamp of a snapshot (s since 1970)."""
    return round(time.time(), 3)
