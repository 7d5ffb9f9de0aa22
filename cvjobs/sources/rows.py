"""The rows of a listing: the Arrow columns of images and failures, and the version of an image.

Rows are gathered as short Python lists and turned into Arrow every ``CHUNK`` of them, so that ten million
images never are ten million Python objects.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cvjobs.common import rules
from cvjobs.common.failures import sentence
from cvjobs.common.paths import image_id, path_text
from cvjobs.sources.file_reading import representable
from cvjobs.storage.refusal import Refused
from cvjobs.storage.remote_files import RemoteState

CHUNK = 50_000
LONGEST = np.iinfo(np.int32).max  # bytes of text in one column of Arrow

IMAGES = pa.schema(
    [
        ("path", pa.string()),
        ("image_id", pa.binary(16)),
        ("bytes", pa.int64()),
        ("modified", pa.timestamp("ns", tz="UTC")),
        ("version", pa.uint64()),
    ]
)
FAILURES = pa.schema([*IMAGES, ("code", pa.string()), ("detail", pa.string())])

_DENIED = frozenset({errno.EACCES, errno.EPERM})
_VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Everything a source holds, seen once; paths are the text of ``cvjobs.common.paths.path_text``.

    ``images`` has one row per image: the columns of ``IMAGES``, then the other columns of a Parquet or CSV list.
    ``failures`` (``FAILURES``) are the entries that failed while listing; what is not known of one is
    ``bytes`` 0, ``modified`` null, ``version`` 0.
    """

    source: str
    """The identity of the source: its absolute, normalised path or its URL (of a glob: its pattern)."""
    root: str
    """The folder (or URL) that ``path`` is relative to; ``""`` for a list, whose paths are URIs as written."""
    images: pa.Table
    failures: pa.Table
    skipped: dict[str, int]
    """What was left out, counted by reason: ``".txt"``, ``"hidden"``, ``"folder link"``, ``"excluded"``, ..."""
    unreadable: tuple[str, ...]
    """Folders (relative to ``root``) that could not be read: nothing is known of what they hold."""
    started_ns: int
    """``time.time_ns()`` before the first entry was seen."""
    base: str
    """The folder that the relative URIs of a list are resolved against; ``""`` otherwise."""
    rules: int = rules.LISTING
    """The version of the rules by which it was listed."""
    followed: tuple[str, ...] = ()
    """Links to folders that were followed."""
    left_out: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The first names of each reason of ``skipped``, ``left_out.EXAMPLES`` at most: paths as in ``images``."""
    not_carried: tuple[str, ...] = ()
    """Columns of a list that are left out: every result has its own of that name, or could have."""


def mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the splitmix64 step of each value: a bijection of 64 bits that scatters near values.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def version_of(sizes: npt.NDArray[np.int64], modified_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Return the versions (uint64) of images from their sizes in bytes and modification times in ns, both (n,).

    The same on every machine and in every process. Of one size, two different times never give one version.
    """
    return mix(mix(sizes.astype(np.uint64)) ^ modified_ns.astype(np.uint64))


def failure_code(error: OSError) -> str:
    """Return the error code of an entry that the operating system refused."""
    if isinstance(error, Refused):
        return "refused"
    if error.errno in _DENIED:
        return "list_permission"
    return "list_vanished" if error.errno in _VANISHED else "read_io"


def path_columns(paths: Sequence[bytes]) -> tuple[pa.Array, pa.Array]:
    """Return the columns ``path`` (text) and ``image_id`` of n paths."""
    ids = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(paths), [None, pa.py_buffer(b"".join(map(image_id, paths)))]
    )
    text = b"".join(paths)
    if b"\\" not in text and len(text) <= LONGEST:
        ends = np.zeros(len(paths) + 1, np.int32)
        np.cumsum(np.fromiter(map(len, paths), np.int32, len(paths)), out=ends[1:])
        # Of the very size: what Arrow makes of a list takes up to three times as much.
        column = pa.StringArray.from_buffers(len(paths), pa.py_buffer(ends), pa.py_buffer(text))
        try:
            column.validate(full=True)
            return column, ids
        except pa.ArrowInvalid:  # not UTF-8
            pass
    return pa.array(map(path_text, paths), pa.string()), ids


def id_bytes(ids: pa.ChunkedArray) -> bytes:
    """Return the 16 bytes of each of n image ids, one after the other."""
    chunks = (chunk for chunk in ids.chunks if len(chunk))
    return b"".join(chunk.buffers()[1][16 * chunk.offset : 16 * (chunk.offset + len(chunk))] for chunk in chunks)


def _bounded(number: int, least: int) -> int:
    return min(max(number, least), int(_INT64.max))


def stat_columns(sizes: Sequence[int], times: Sequence[int]) -> tuple[pa.Array, pa.Array, npt.NDArray[np.uint64]]:
    """Return the columns ``bytes`` and ``modified``, and the versions, of n sizes and times in ns.

    Times beyond the years 1677 to 2262, which 64 bits of nanoseconds cannot hold, become the nearest that can, and so
    do sizes, which a server may claim as it likes.
    """
    try:
        size_array = np.array(sizes, dtype=np.int64)
    except OverflowError:
        size_array = np.array([_bounded(size, 0) for size in sizes], dtype=np.int64)
    try:
        time_array = np.array(times, dtype=np.int64)
    except OverflowError:
        time_array = np.array([representable(time) for time in times], dtype=np.int64)
    modified = pa.array(time_array).view(IMAGES.field("modified").type)
    return pa.array(size_array), modified, version_of(size_array, time_array)


def seen_columns(about: Sequence[RemoteState]) -> tuple[pa.Array, pa.Array, npt.NDArray[np.uint64]]:
    """Return the columns as ``stat_columns`` does, of files and objects; the version of an object is its ETag's."""
    size, modified, version = stat_columns([s.size for s in about], [s.modified for s in about])
    return size, modified, _tagged(version, size, [s.tag for s in about])


def _tagged(version: npt.NDArray[np.uint64], size: pa.Array, tags: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return the versions with those of n objects that have an ETag made from it and their size alone."""
    if not any(tags):
        return version
    hashes = np.fromiter(map(text_hash, (tag.encode() for tag in tags)), np.uint64, len(tags))
    own = mix(mix(size.to_numpy().astype(np.uint64)) ^ hashes)
    return np.where(np.fromiter(map(bool, tags), np.bool_, len(tags)), own, version)


def text_hash(text: bytes) -> np.uint64:
    """Return 64 bits of a text."""
    return np.uint64(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))


class ImageRows:
    """The images found so far: append to ``paths``, ``sizes`` and ``times`` alike, ``flush`` at ``CHUNK``.

    Objects have ``tags`` too, files none.
    """

    def __init__(self) -> None:
        self.paths: list[bytes] = []
        self.sizes: list[int] = []
        self.times: list[int] = []
        self.tags: list[str] = []
        self.flushed = 0
        self._batches: list[pa.RecordBatch] = []

    def __len__(self) -> int:
        return self.flushed + len(self.paths)

    def flush(self) -> None:
        """Turn the lists into Arrow and empty them, in place."""
        if not self.paths:
            return
        path, ids = path_columns(self.paths)
        size, modified, version = stat_columns(self.sizes, self.times)
        columns = [path, ids, size, modified, pa.array(_tagged(version, size, self.tags))]
        self._batches.append(pa.RecordBatch.from_arrays(columns, schema=IMAGES))
        self.flushed += len(self.paths)
        for column in (self.paths, self.sizes, self.times, self.tags):
            column.clear()

    def cut(self, count: int) -> None:
        """Forget all images but the first ones."""
        while self.flushed > count:
            last = self._batches.pop()
            self.flushed -= last.num_rows
            if self.flushed < count:
                self._batches.append(last.slice(0, count - self.flushed))
                self.flushed = count
                break
        for column in (self.paths, self.sizes, self.times, self.tags):
            del column[max(count - self.flushed, 0) :]

    def table(self) -> pa.Table:
        """Return all images."""
        self.flush()
        return pa.Table.from_batches(self._batches, schema=IMAGES)


class FailureRows:
    """The entries that failed so far."""

    def __init__(self) -> None:
        self._rows: list[tuple[bytes, str, str]] = []
        self._batches: list[pa.RecordBatch] = []

    def __len__(self) -> int:
        return sum(len(batch) for batch in self._batches) + len(self._rows)

    def cut(self, count: int) -> None:
        """Forget all entries but the first ones."""
        if count < len(self):
            self._batches = self.table().slice(0, count).to_batches()

    def add(self, path: bytes, code: str, detail: str) -> None:
        """Add one entry, with its path relative to the root."""
        self._rows.append((path, code, detail))
        if len(self._rows) >= CHUNK:
            self._flush()

    def table(self) -> pa.Table:
        """Return all failures."""
        self._flush()
        return pa.Table.from_batches(self._batches, schema=FAILURES)

    def _flush(self) -> None:
        if self._rows:
            paths, codes, details = zip(*self._rows, strict=True)
            self._batches.append(failure_batch(paths, codes, details))
            self._rows.clear()


def failure_batch(paths: Sequence[bytes], codes: Iterable[str], details: Iterable[str]) -> pa.RecordBatch:
    """Return n entries of which nothing but the path is known, as rows of ``FAILURES``."""
    path, ids = path_columns(paths)
    count = len(paths)
    unknown = [
        pa.array(np.zeros(count, np.int64)),
        pa.nulls(count, IMAGES.field("modified").type),
        pa.array(np.zeros(count, np.uint64)),
    ]
    columns = [path, ids, *unknown, pa.array(codes, pa.string()), pa.array(map(sentence, details), pa.string())]
    return pa.RecordBatch.from_arrays(columns, schema=FAILURES)
