"""Snapshots: which files make up an output, published by put-if-absent of the next version number."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cvjobs.dataset import layout, versions
from cvjobs.dataset.parts import File
from cvjobs.errors import JobFailed, WrongUse
from cvjobs.remote import Options, address, filesystem, parse_options
from cvjobs.storage import Store, in_flight, open_store

if TYPE_CHECKING:
    import pandas
    import ray.data


Ints = npt.NDArray[np.int64]


class Damaged(JobFailed):
    """A file of the output is gone, or is not what was written."""

    def __init__(self, store: Store, file: File, reason: object) -> None:
        super().__init__(
            f"{store.place}/{file.name} is damaged ({' '.join(str(reason).split())[:200]}): "
            f"delete it, and the same command computes its {file.rows:,} images again."
        )


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One published state of an output; ``version`` 0 is the empty state before the first one.

    ``want`` digests which images in which version the rows stand for; ``recent`` are ids (hex) whose files were
    too fresh when they were read to trust their time stamp; ``facts`` are what the fingerprint is made of;
    ``folded`` are the parts whose rows this version decided on.
    """

    version: int
    run: str = ""
    epoch: int = 0
    fingerprint: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    resolved: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    root: str = ""
    want: str = ""
    wanted: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    results: tuple[File, ...] = ()
    errors: tuple[File, ...] = ()
    recent: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
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
        }

    @classmethod
    def load(cls, record: dict[str, Any]) -> Snapshot:
        """Return the snapshot that a JSON record describes."""
        return cls(
            **{
                **record,
                "results": tuple(File.load(f) for f in record["results"]),
                "errors": tuple(File.load(f) for f in record["errors"]),
                "recent": tuple(record["recent"]),
                "folded": tuple(record["folded"]),
            }
        )


def latest(store: Store) -> Snapshot:
    """Return the newest snapshot, the empty one for a new output.

    Raises JobFailed where it is damaged, WrongUse where the folder holds an index.
    """
    found = versions.newest(store)
    if found is None:
        return Snapshot(version=0)
    name, record = found
    if "factory" in record:
        raise WrongUse(f"{store.place} holds an index, no images' results: name the -o folder of another command.")
    try:
        return Snapshot.load(record)
    except (KeyError, TypeError) as error:
        raise JobFailed(
            f"{store.place}/{name} is damaged: restore it from a backup, or delete it to compute all images again."
        ) from error


def next_version(store: Store) -> int:
    """Return the number that the next snapshot gets."""
    return versions.following(store)


def publish(store: Store, snapshot: Snapshot) -> bool:
    """Publish by put-if-absent; False where another run was first, and then nothing may be deleted."""
    return versions.publish(store, snapshot.version, snapshot.record())


def read_table(store: Store, file: File, columns: list[str] | None = None) -> pa.Table:
    """Return a file's rows (some of its columns); raises Damaged, or JobFailed where the store fails."""
    with _opened(store, file) as parquet:
        return parquet.read(columns=columns, use_threads=False)


def read_batches(store: Store, file: File, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield a file's rows (some of its columns), one row group at a time; raises as ``read_table``."""
    with _opened(store, file) as parquet:
        for group in range(parquet.num_row_groups):
            yield parquet.read_row_group(group, columns=columns, use_threads=False)


def read_groups(
    store: Store, file: File, columns: list[str], rows: Ints | None = None
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
                raise Damaged(store, file, "two of its columns have one name")
            yield parquet
    except pa.ArrowMemoryError:
        raise
    except FileNotFoundError as error:
        raise Damaged(store, file, "it is gone") from error
    except pa.ArrowException as error:
        raise Damaged(store, file, error) from error
    except OSError as error:
        if error.errno is None:  # Arrow's own: the content makes no sense
            raise Damaged(store, file, error) from error
        reason = f"{store.place}/{file.name} cannot be read ({error.strerror})"
        raise JobFailed(f"{reason}: when it works again, run the same command to continue.") from error


class Dataset:
    """A finished output as of its newest snapshot; what ``cvjobs.open`` returns."""

    def __init__(self, store: Store, snapshot: Snapshot, options: Options) -> None:
        self._store, self.snapshot, self._options = store, snapshot, options

    def __repr__(self) -> str:
        s = self.snapshot
        return f"Dataset({self._store.place!r}, version={s.version}, ok={s.ok}, failed={s.failed})"

    def __len__(self) -> int:
        return self.snapshot.ok

    @property
    def files(self) -> list[str]:
        """The result files of this snapshot, as paths or URLs."""
        return [f"{self._store.place}/{f.name}" for f in self.snapshot.results]

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """Return the results, one row per image, as an Arrow table (all in memory)."""
        return self._table(self.snapshot.results, columns)

    def errors(self) -> pa.Table:
        """Return the failed images: path, stage, code, detail, retryable, attempts, as an Arrow table."""
        if not self.snapshot.errors:
            return layout.ERROR_SCHEMA.empty_table()
        return self._table(self.snapshot.errors, None)

    def _table(self, files: tuple[File, ...], columns: list[str] | None) -> pa.Table:
        try:
            tables = list(in_flight(self._store, lambda file: read_table(self._store, file, columns), files))
        except Damaged as error:
            newest = latest(self._store).version
            if newest == self.snapshot.version:
                raise
            superseded = f"Snapshot {self.snapshot.version} of {self._store.place} is superseded by {newest}"
            raise WrongUse(f"{superseded}: open the output again.") from error
        return pa.concat_tables(tables) if tables else pa.table({})

    def to_pandas(self, columns: list[str] | None = None) -> pandas.DataFrame:
        """Return the results as a pandas DataFrame."""
        return self.to_arrow(columns).to_pandas()

    def to_ray(self) -> ray.data.Dataset:
        """Return the results as a Ray Dataset, read lazily by whatever Ray this process is connected to."""
        import ray.data

        if not (place := address(self._store.place)):
            return ray.data.read_parquet(self.files)
        files = [f.removeprefix(f"{place.scheme}://") for f in self.files]
        return ray.data.read_parquet(files, filesystem=filesystem(place, self._options))


def open_dataset(out: str | os.PathLike[str], storage_options: Mapping[str, str] | None = None) -> Dataset:
    """Open an output's newest snapshot; raises WrongUse where there is none.

    ``storage_options`` are those of ``--storage-option``, as in ``{"endpoint": "http://127.0.0.1:9000"}``.
    """
    options = parse_options(storage_options or {})
    store = open_store(os.fspath(out), options=options)
    snapshot = latest(store)
    if snapshot.version == 0:
        raise WrongUse(f"{store.place} holds no finished cvjobs output: name the -o folder of a run that ended.")
    return Dataset(store, snapshot, options)


def now() -> float:
    """Return the time stamp of a snapshot (s since 1970)."""
    return round(time.time(), 3)
