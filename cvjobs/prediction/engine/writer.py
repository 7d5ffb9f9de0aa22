"""Bringing rows to rest: a buffer that becomes a part after at most 10 s or 64 MB, or when a shard is complete."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cvjobs.common.failures import CODES, Failure
from cvjobs.common.timing import Stopwatch
from cvjobs.dataset import parts
from cvjobs.dataset import schema as dataset_schema
from cvjobs.images.measured import Measurements
from cvjobs.storage.store import Store

FIRST, LAST = 1.0, 10.0  # s between parts: a tenth of the time that the engine has worked, within these
SHARE = 0.1
BYTES = 64 << 20


@dataclass(eq=False)
class Shard:
    """Key rows that were handed to an engine, and how far they are.

    ``answered`` rows have a result or a failure, ``committed`` ones are durable.
    """

    table: pa.Table
    answered: int = 0
    committed: int = 0

    @property
    def complete(self) -> bool:
        """Whether every row is durable."""
        return bool(self.committed == self.table.num_rows)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of a shard with a result: their numbers, what was measured, and a column for each field of the results."""

    shard: Shard
    rows: list[int]
    measured: Measurements
    arrays: list[pa.Array]

    def part(self, of: slice) -> _Rows:
        """Return some of the rows."""
        return _Rows(self.shard, self.rows[of], self.measured[of], [array[of] for array in self.arrays])


def _together(taken: list[_Rows]) -> list[_Rows]:
    """Return the rows of a shard as one, for a table of a few rows costs what one of many does."""
    shards: dict[Shard, list[_Rows]] = {}
    for rows in taken:
        shards.setdefault(rows.shard, []).append(rows)
    try:
        return [
            _Rows(
                shard,
                [row for rows in some for row in rows.rows],
                np.concatenate([rows.measured for rows in some]),
                [pa.concat_arrays(arrays) for arrays in zip(*(rows.arrays for rows in some), strict=True)],
            )
            for shard, some in shards.items()
        ]
    except pa.ArrowException:  # some do not fit, which is said of each where it is found
        return taken


@dataclass
class _Buffer:
    """Rows on their way into the next part."""

    results: list[_Rows] = field(default_factory=list)
    failures: list[tuple[Shard, int, Failure]] = field(default_factory=list)
    bytes: int = 0
    since: float = field(default_factory=time.monotonic)


class Writer:
    """One thread that turns buffered rows into parts; ``check`` may refuse each commit by raising."""

    def __init__(
        self,
        store: Store,
        author: parts.Author,
        schema: pa.Schema,
        check: Callable[[], None],
        broken: Callable[[BaseException], None],
    ) -> None:
        self._store, self._author, self._schema, self._check, self._broken = store, author, schema, check, broken
        # No list's own column is the last one.
        self._marked = schema.field(len(schema) - 1).name == dataset_schema.TRUNCATED.name
        self.watch = Stopwatch()
        self.longest = 0.0  # s that a commit took
        self._buffer = _Buffer()
        self._changed = threading.Condition()
        self._began: float | None = None
        self._closing = False
        self._dead = False
        self._thread = threading.Thread(target=self._run, name="write", daemon=True)
        self._thread.start()

    def results(self, shard: Shard, rows: list[int], measured: Measurements, arrays: list[pa.Array]) -> None:
        """Take the results of some rows of a shard; waits while two parts' worth of rows are not yet written."""
        with self._changed:
            self._changed.wait_for(lambda: self._buffer.bytes < 2 * BYTES or self._dead)
            self._buffer.results.append(_Rows(shard, rows, measured, arrays))
            self._buffer.bytes += sum(a.nbytes for a in arrays) + 200 * len(rows)
            self._answered(shard, len(rows))

    def failure(self, shard: Shard, row: int, failure: Failure) -> None:
        """Take the failure of one row of a shard."""
        with self._changed:
            self._buffer.failures.append((shard, row, failure))
            self._buffer.bytes += 500
            self._answered(shard, 1)

    def _answered(self, shard: Shard, count: int) -> None:
        if self._began is None:
            self._began = self._buffer.since = time.monotonic()
        shard.answered += count
        if shard.answered == shard.table.num_rows or self._buffer.bytes >= BYTES:
            self._changed.notify_all()

    def wait(self, shard: Shard, interrupted: Callable[[], bool]) -> None:
        """Wait until a shard is complete, or ``interrupted`` says to stop waiting."""
        with self._changed:
            while not shard.complete and not interrupted():
                self._changed.wait(0.5)

    def wake(self) -> None:
        """Let those who wait look again."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Commit what is buffered and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _due(self) -> bool:
        buffer = self._buffer
        if not buffer.results and not buffer.failures:
            return False
        shards = {rows.shard for rows in buffer.results} | {failed[0] for failed in buffer.failures}
        return (
            self._closing
            or buffer.bytes >= BYTES
            or time.monotonic() - buffer.since >= self._patience()
            or any(s.answered == s.table.num_rows for s in shards)
        )

    def _patience(self) -> float:
        """Return how long (s) rows may wait, so that a kill loses a tenth of the work, and never much."""
        worked = 0.0 if self._began is None else time.monotonic() - self._began
        return min(max(SHARE * worked, FIRST), LAST)

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    while not self._due() and not self._closing:
                        self._changed.wait(1.0)
                    if not self._due():
                        return
                    buffer, self._buffer = self._buffer, _Buffer()
                    self._changed.notify_all()
                began = time.monotonic()
                with self.watch.running():
                    self._check()
                    self._commit(buffer)
                self.longest = max(self.longest, time.monotonic() - began)
                with self._changed:
                    for rows in buffer.results:
                        rows.shard.committed += len(rows.rows)
                    for shard, _, _ in buffer.failures:
                        shard.committed += 1
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - raised by ``Engine.run``, in the thread that waits
            with self._changed:
                self._dead = True
                self._changed.notify_all()
            self._broken(error)

    def _commit(self, buffer: _Buffer) -> None:
        try:
            parts.commit(self._store, self._author, self._results(buffer), self._errors(buffer))
        except pa.ArrowException as error:
            if isinstance(error, MemoryError):
                raise
            # A file has no place for what a table has: a date too far away in seconds.
            parts.commit(self._store, self._author, self._results(buffer, probed=True), self._errors(buffer))

    def _results(self, buffer: _Buffer, *, probed: bool = False) -> pa.Table | None:
        taken, buffer.results = _together(buffer.results), []
        tables = [table for rows in taken for table in self._tables(buffer, rows, probed)]
        return pa.concat_tables(tables).combine_chunks() if tables else None

    def _tables(self, buffer: _Buffer, rows: _Rows, probed: bool) -> list[pa.Table]:
        """Return the table of some rows; those that do not fit into it, found by halving, become failures.

        ``probed``: nor may there be any that do not fit into a file.
        """
        try:
            table = self._table(rows)
            if probed:
                pq.write_table(table, pa.BufferOutputStream(), compression="NONE")
        except (pa.ArrowException, ArithmeticError, TypeError, ValueError) as error:
            if isinstance(error, MemoryError):
                raise
            if len(rows.rows) > 1:
                half = len(rows.rows) // 2
                pieces = rows.part(slice(None, half)), rows.part(slice(half, None))
                return [table for piece in pieces for table in self._tables(buffer, piece, probed)]
            detail = f"{type(error).__name__}: {error}".split("\n", 1)[0][:500]
            buffer.failures.append((rows.shard, rows.rows[0], Failure("worker", "unwritable", detail)))
            return []
        buffer.results.append(rows)
        return [table]

    def _table(self, rows: _Rows) -> pa.Table:
        own = len(dataset_schema.MEASURED)
        measured = rows.measured
        marks = [pa.array(measured["truncated"])] if self._marked else []
        carried = len(self._schema) - len(dataset_schema.KEYS) - own - len(rows.arrays) - len(marks)
        keys = [f.name for f in self._schema][: len(dataset_schema.KEYS)]
        lists = [f.name for f in self._schema][len(keys) + own : len(keys) + own + carried]
        listed = rows.shard.table.take(pa.array(rows.rows))
        columns = [
            *(listed[name] for name in keys),
            pa.FixedSizeBinaryArray.from_buffers(
                dataset_schema.ID, len(measured), [None, pa.py_buffer(measured["content_hash"].tobytes())]
            ),
            *(pa.array(np.ascontiguousarray(measured[name])) for name in ("width", "height", "frames")),
            *(listed[name] for name in lists),
            *rows.arrays,
            *marks,
        ]
        return pa.table(columns, schema=self._schema)

    def _errors(self, buffer: _Buffer) -> pa.Table | None:
        if not buffer.failures:
            return None
        listed = pa.concat_tables(
            shard.table.select([f.name for f in dataset_schema.KEYS]).slice(row, 1) for shard, row, _ in buffer.failures
        )
        return error_rows(listed, [failure for _, _, failure in buffer.failures])


def error_rows(listed: pa.Table, failures: list[Failure]) -> pa.Table:
    """Return rows of ``errors/`` for key rows and their failures."""
    columns = [
        *(listed[f.name] for f in dataset_schema.KEYS),
        pa.array([f.stage for f in failures], pa.string()),
        pa.array([f.code for f in failures], pa.string()),
        pa.array([f.detail for f in failures], pa.string()),
        pa.array([CODES[f.code].retryable for f in failures], pa.bool_()),
        pa.array([f.attempts for f in failures], pa.int32()),
    ]
    return pa.table(columns, schema=dataset_schema.ERROR_SCHEMA)
