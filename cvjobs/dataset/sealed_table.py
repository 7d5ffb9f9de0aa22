"""Parquet files that tell whether they are what was written: a digest of all other bytes stands before the footer.

Parquet has no checksum of its footer. Readers find all they need from there, so that no other program sees the seal,
and it is within the file, so that both are published at once. Files of earlier versions have none, and are read as they
are.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from cvjobs.storage.store import Store

# On both sides of the digest: where a bit of one is damaged, the other still tells that there was a seal.
MARK = bytes.fromhex("9e1ccf0a63767365616c5f7878683382")
_DIGITS = 32
_LENGTH = _DIGITS + 2 * len(MARK)
_END = 8  # the footer's length (uint32) and four letters
BLOCK = 1 << 20

Found = TypeVar("Found")


class UnreadableTable(Exception):
    """A table is gone, or is not what was written; the text says which."""

    @property
    def words(self) -> str:
        """What follows the table's name in a sentence."""
        return "is gone" if isinstance(self, TableGone) else f"is damaged ({self})"


class TableGone(UnreadableTable):
    """A table is not there."""

    def __init__(self) -> None:
        super().__init__("it is gone")


class SealedWriter:
    """Writes a Parquet file with its seal; the arguments are those of pyarrow's ``ParquetWriter``."""

    def __init__(self, file: BinaryIO, schema: pa.Schema, **options: Any) -> None:
        self._sink = _Sink(file)
        self._writer = pq.ParquetWriter(self._sink, schema, **options)

    def __enter__(self) -> SealedWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sink.hold()
        self._writer.close()
        if error is None:
            self._sink.seal()

    def write_table(self, table: pa.Table, row_group_size: int | None = None) -> None:
        """Write rows."""
        self._writer.write_table(table, row_group_size=row_group_size)


class _Sink(io.RawIOBase):
    """Hands bytes on and hashes them; what comes after ``hold``, the footer among it, waits for ``seal``."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, xxhash.xxh3_128()
        self._held: bytearray | None = None
        self._length = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._length

    def write(self, content: Any) -> int:
        view = memoryview(content)
        if self._held is None:
            self._file.write(view)
            self._digest.update(view)
        else:
            self._held += view
        self._length += len(view)
        return len(view)

    def hold(self) -> None:
        self._held = bytearray()

    def seal(self) -> None:
        held = bytes(self._held or b"")
        at = len(held) - _END - int.from_bytes(held[-_END:-4], "little")
        self._digest.update(held)
        for piece in (held[:at], MARK, self._digest.hexdigest().encode(), MARK, held[at:]):
            self._file.write(piece)


def write(store: Store, name: str, rows: pa.Table) -> None:
    """Publish a table with its seal."""
    store.write(name, lambda file: dump(file, rows))


def dump(file: BinaryIO, rows: pa.Table) -> None:
    """Write a table with its seal into a file; its pages have checksums, too."""
    with SealedWriter(file, rows.schema, write_page_checksum=True) as writer:
        writer.write_table(rows)


def is_whole(file: BinaryIO) -> bool | None:
    """Return whether a Parquet file is what was written, None where it has no seal and cannot tell."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(size - _END, 0))
    at = size - _END - int.from_bytes(file.read(4), "little") - _LENGTH
    seal = b""
    if at >= 0:
        file.seek(at)
        seal = file.read(_LENGTH)
    if not (seal.startswith(MARK) and seal.endswith(MARK)):
        file.seek(0)
        return False if _holds(file, MARK) else None
    digest = xxhash.xxh3_128()
    for start, end in ((0, at), (at + _LENGTH, size)):
        for place in range(start, end, BLOCK):
            file.seek(place)
            digest.update(file.read(min(BLOCK, end - place)))
    return digest.hexdigest().encode() == seal[len(MARK) : -len(MARK)]


def _holds(file: BinaryIO, mark: bytes) -> bool:
    before = b""
    while block := file.read(BLOCK):
        if mark in before + block:
            return True
        before = block[-len(mark) :]
    return False


def read(store: Store, name: str, schema: pa.Schema | None = None) -> pa.Table:
    """Return the rows of a small file; raises UnreadableTable where it is gone or not what was written."""
    try:
        content = io.BytesIO(store.read(name))
    except FileNotFoundError:
        raise TableGone from None
    return _checked(content, lambda: pq.read_table(content, schema=schema))


def check(store: Store, name: str) -> int:
    """Return how many rows a file has, all of which were read; raises UnreadableTable as ``read``."""
    try:
        file = store.open(name)
    except FileNotFoundError:
        raise TableGone from None
    with file:
        return _checked(file, lambda: _counted(file))


def _counted(file: BinaryIO) -> int:
    parquet = pq.ParquetFile(file, page_checksum_verification=True)
    return sum(batch.num_rows for batch in parquet.iter_batches(use_threads=False))


def _checked(file: BinaryIO, read: Callable[[], Found]) -> Found:
    whole = is_whole(file)
    if whole is False:
        raise UnreadableTable("its digest differs")
    file.seek(0)
    try:
        return read()
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableTable(str(error).strip().partition("\n")[0][:200]) from error
