"""The newest snapshot of an output, opened to be read: its rows as streams, and what it says of itself."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cvjobs.common import categories as common_categories
from cvjobs.common import tabular
from cvjobs.common.categories import Category
from cvjobs.common.errors import CvjobsError, JobFailed, WrongUse
from cvjobs.common.tabular import Tabular
from cvjobs.dataset import contents, run_files
from cvjobs.dataset import schema as dataset_schema
from cvjobs.dataset import snapshot as dataset_snapshot
from cvjobs.dataset.parts import File, committed
from cvjobs.dataset.snapshot import DamagedOutput, Ints, Snapshot
from cvjobs.storage.object_store import address, filesystem
from cvjobs.storage.storage_options import Options, parse_options
from cvjobs.storage.store import Store, in_flight, open_store

if TYPE_CHECKING:
    import ray.data

EMBED = "embed"
VECTORS = "embedding"


@dataclass(frozen=True, kw_only=True)
class SnapshotReader:
    """One snapshot of an output; a row's position counts through its files in their order, from 0.

    Reading rows raises ``snapshot.DamagedOutput`` for a file that is gone or not what was written, and JobFailed
    where the store fails.
    """

    store: Store
    snapshot: Snapshot

    def __len__(self) -> int:
        return self.snapshot.ok

    @property
    def task(self) -> str:
        """What the results are: a task of ``schema.SCHEMAS``, or ``embed`` for vectors."""
        return common_categories.task(self.snapshot.facts) or EMBED

    @property
    def categories(self) -> list[Category]:
        """The classes that the output's model knows."""
        return common_categories.categories(self.snapshot.facts)

    @property
    def base(self) -> str:
        """The folder or URL that the paths of a list are relative to; empty where the source has a root."""
        return "" if self.snapshot.root else posixpath.dirname(self.snapshot.source)

    @property
    def confined(self) -> bool:
        """Whether the run read only what lies below its source, and the public web: what shows its images does, too."""
        config = run_files.read(self.store, self.snapshot.run)
        if config is not None:
            return bool(config.options.get("confine"))
        # Of a damaged record the safe thing is believed, which costs pictures alone.
        return self.store.size(run_files.config_name(self.snapshot.run)) is not None

    def tables(self, columns: list[str] | None = None, most: int | None = None) -> Iterator[pa.Table]:
        """Yield some columns of all rows, file by file; ``most`` bounds how many files are asked for at once."""
        return self._tables(self.snapshot.results, columns, most)

    def errors(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Yield some columns of the failed images, file by file."""
        return self._tables(self.snapshot.errors, columns, None)

    def _tables(self, files: tuple[File, ...], columns: list[str] | None, most: int | None) -> Iterator[pa.Table]:
        return in_flight(self.store, lambda file: dataset_snapshot.read_table(self.store, file, columns), files, most)

    def groups(self, columns: list[str] | None = None, rows: Ints | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Yield the position of the first row and some columns of each row group.

        With ``rows`` (sorted positions) only the row groups that hold one of them are read.
        """
        first = 0
        for file in self.snapshot.results:
            end = first + file.rows
            if rows is None or np.searchsorted(rows, first) < np.searchsorted(rows, end):
                inside = None if rows is None else rows - first
                for at, table in dataset_snapshot.read_groups(self.store, file, columns, inside):
                    yield first + at, table
            first = end

    def pieces(self, columns: list[str], rows: Ints) -> Iterator[pa.Table]:
        """Yield some columns of the rows at sorted positions, in their order, one table a row group."""
        for first, table in self.groups(columns, rows):
            here = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + table.num_rows)]
            yield table.take(pa.array(here - first)).select(columns)

    def take(self, columns: list[str], rows: Ints) -> pa.Table:
        """Return some columns of the rows at sorted positions, in their order."""
        tables = list(self.pieces(columns, rows))
        return pa.concat_tables(tables) if tables else pa.table({name: [] for name in columns})

    @property
    def schema(self) -> pa.Schema:
        """The columns of the results, as the first file has them; none where there is no result."""
        files = self.snapshot.results
        return dataset_snapshot.read_schema(self.store, files[0]) if files else pa.schema([])

    @property
    def carried(self) -> list[str]:
        """The names of the columns that come from the source's own list."""
        own = dataset_schema.SCHEMAS[self.task].names if self.task != EMBED else []
        return [name for name in self.schema.names if name not in {*dataset_schema.RESERVED, VECTORS, *own}]

    @property
    def origin(self) -> dict[str, Any]:
        """What is kept with a thing that is made from the snapshot, as JSON types."""
        base = self.snapshot
        return {
            "output": self.store.place,
            "snapshot": base.version,
            "created": base.created,
            "source": base.source,
            "task": self.task,
            "fingerprint": base.fingerprint,
            "model": base.facts.get("model", ""),
            "weights_sha256": base.facts.get("weights_sha256", ""),
            "images": base.ok,
            "failed": base.failed,
        }

    @contextmanager
    def unless_replaced(self, remedy: str, kind: type[CvjobsError] = JobFailed) -> Iterator[None]:
        """Read in this block: files that are gone because another run published raise ``kind`` with the remedy."""
        try:
            yield
        except DamagedOutput as error:
            newest = dataset_snapshot.latest(self.store).version
            if newest == self.snapshot.version:
                raise
            replaced = f"Snapshot {self.snapshot.version} of {self.store.place} was replaced by {newest} meanwhile"
            raise kind(f"{replaced}: {remedy}.") from error


def open_newest(store: Store, what: str = "cvjobs output", made_by: str = "a run that ended") -> SnapshotReader:
    """Open the newest snapshot of an output.

    Raises WrongUse where there is none (``what`` it should hold, ``made_by`` what), JobFailed where it is damaged.
    """
    base = dataset_snapshot.latest(store)
    if base.version == 0 and dataset_snapshot.orphans(store) and not committed(store):
        raise JobFailed(
            f"{store.place} holds results and no record of them: `cvjobs verify {store.place} --repair` brings them "
            "back, and the command that made them computes them again."
        )
    if base.version == 0:
        raise contents.none(store, f"finished {what}", made_by)
    return SnapshotReader(store=store, snapshot=base)


class Dataset(Tabular):
    """A finished output as of its newest snapshot; what ``cvjobs.open`` returns."""

    def __init__(self, reader: SnapshotReader, options: Options) -> None:
        self._reader, self._options = reader, options

    def __repr__(self) -> str:
        s = self.snapshot
        return f"Dataset({self._reader.store.place!r}, version={s.version}, ok={s.ok}, failed={s.failed})"

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that is read."""
        return self._reader.snapshot

    @property
    def files(self) -> list[str]:
        """The result files of this snapshot, as paths or URLs."""
        return [f"{self._reader.store.place}/{f.name}" for f in self.snapshot.results]

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """Return the results, one row per image, as an Arrow table (all in memory)."""
        if columns and self.snapshot.results:
            with self._current():
                tabular.check(self._reader.schema.names, columns)
        return self._whole(self._reader.tables(columns))

    def errors(self) -> pa.Table:
        """Return the failed images: path, stage, code, detail, retryable, attempts, as an Arrow table."""
        if not self.snapshot.errors:
            return dataset_schema.ERROR_SCHEMA.empty_table()
        return self._whole(self._reader.errors())

    def _current(self) -> AbstractContextManager[None]:
        return self._reader.unless_replaced("open the output again", WrongUse)

    def _whole(self, tables: Iterator[pa.Table]) -> pa.Table:
        with self._current():
            found = list(tables)
        return pa.concat_tables(found) if found else pa.table({})

    def to_ray(self) -> ray.data.Dataset:
        """Return the results as a Ray Dataset, read lazily by the Ray that this process is connected to.

        Without one it connects to ``RAY_ADDRESS``, or starts a Ray on this machine; another cluster
        that Ray finds on it is left alone. Raises JobFailed where Ray does not answer.
        """
        import ray.data

        from cvjobs.clusters.ray import connect

        if not ray.is_initialized():
            connect(os.environ.get("RAY_ADDRESS"))
        if not (place := address(self._reader.store.place)):
            return ray.data.read_parquet(self.files)
        files = [f.removeprefix(f"{place.scheme}://") for f in self.files]
        return ray.data.read_parquet(files, filesystem=filesystem(place, self._options))


def open_dataset(out: str | os.PathLike[str], storage_options: Mapping[str, str] | None = None) -> Dataset:
    """Open an output's newest snapshot; raises WrongUse where there is none.

    ``storage_options`` are those of ``--storage-option``, as in ``{"endpoint": "http://127.0.0.1:9000"}``.
    """
    options = parse_options(storage_options or {})
    return Dataset(open_newest(open_store(os.fspath(out), options=options)), options)
