"""The files of an index: streamed into the store, checked before they are read, fetched where FAISS needs a path."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cvjobs.dataset.parts import File
from cvjobs.indexing import faiss_compat, generation
from cvjobs.indexing.damage import DamagedIndex
from cvjobs.storage.local_store import LocalStore
from cvjobs.storage.store import Store

BLOCK = 4 << 20


def publish_index(store: Store, name: str, index: Any, rows: int) -> File:
    """Publish a FAISS index as a file."""

    def fill(file: BinaryIO) -> None:
        failed: list[OSError] = []

        def write(content: bytes) -> int:
            try:
                return file.write(content)
            except OSError as error:  # FAISS would make a RuntimeError of it
                failed.append(error)
                raise

        try:
            faiss.write_index(index, faiss.PyCallbackIOWriter(write, BLOCK))
        except (RuntimeError, OSError) as error:
            raise (failed[0] if failed else error) from error

    written = store.write(name, fill)
    return File(name=name, rows=rows, bytes=written.bytes, sha256=written.sha256)


def fetch(store: Store, files: tuple[File, ...], scratch: Path, ours: bool = False) -> dict[str, Path]:
    """Check files of a generation and return local paths by the last part of the name.

    Files of a local store stay where they are, those of another are fetched into ``scratch``. Of local files that
    are ``ours``, written or checked by this process, only the length is looked at. Raises DamagedIndex for a file that
    is gone or has another length or sha256 than what was written.
    """
    try:
        with ThreadPoolExecutor(4) as threads:
            paths = list(threads.map(lambda file: _fetch(store, file, scratch, ours), files))
    except _DifferentFile as error:
        raise DamagedIndex(store, *error.args) from error
    return {path.name: path for path in paths}


class _DifferentFile(Exception):
    """A file, whose name comes first, is not what was written, for the reason that follows."""


def _fetch(store: Store, file: File, scratch: Path, ours: bool) -> Path:
    if ours and isinstance(store, LocalStore) and store.size(file.name) == file.bytes:
        return store.root / file.name
    last = file.name.rpartition("/")[2]
    here = isinstance(store, LocalStore)
    path = (store.root if isinstance(store, LocalStore) else scratch) / (file.name if here else last)
    digest, length = hashlib.sha256(), 0
    try:
        with store.open(file.name) as source, nullcontext() if here else path.open("wb") as copy:
            while block := source.read(BLOCK):
                length += len(block)
                digest.update(block)
                if copy is not None:
                    copy.write(block)
    except FileNotFoundError as error:
        raise _DifferentFile(file.name, "it is gone") from error
    if length != file.bytes:
        raise _DifferentFile(file.name, generation.other_length(length, file))
    if digest.hexdigest() != file.sha256:
        raise _DifferentFile(file.name, "its sha256 differs")
    return path


def read_index(path: Path, flags: int = 0) -> Any:
    """Read a FAISS file whose sha256 was checked; raises RuntimeError for content that makes no sense.

    No vector in it can be longer than the file, which FAISS is told before it allocates any.
    """
    size = path.stat().st_size
    limits = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    faiss.set_deserialization_vector_byte_limit(size)
    faiss.set_deserialization_loop_limit(size)
    try:
        return faiss.read_index(str(path), flags | faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE)
    finally:
        faiss.set_deserialization_vector_byte_limit(limits[0])
        faiss.set_deserialization_loop_limit(limits[1])


def read_lists(path: Path, lists: Path | None) -> Any:
    """Read an index of inverted lists, as ``read_index``, and map its file of ``lists``; without one it has none."""
    # FAISS's own flag for a file beside prints a line.
    index = read_index(path, faiss.IO_FLAG_SKIP_IVF_DATA | faiss.IO_FLAG_READ_ONLY)
    if lists is None:
        faiss_compat.empty_lists(index)
    else:
        faiss_compat.map_lists(index, str(lists))
    return index


def read_rows(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of a checked Parquet file."""
    with pq.ParquetFile(path) as parquet:
        return parquet.read(columns=columns)


def read_removed(path: Path) -> npt.NDArray[np.int64]:
    """Return the positions that are no longer live, sorted."""
    return np.asarray(read_rows(path)["row"].to_numpy(), np.int64)


def read_halves(path: Path | None, dim: int) -> npt.NDArray[np.float16] | None:
    """Return the half floats (n, dim) of a checked file, mapped."""
    return None if path is None else np.memmap(path, np.float16, "r").reshape(-1, dim)
