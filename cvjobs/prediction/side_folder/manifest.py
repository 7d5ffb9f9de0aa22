"""Which files of a folder are ours, and what they were made from; one run at a time may change them."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cvjobs.common.categories import Category
from cvjobs.common.errors import JobFailed, OutputHeld, WrongUse
from cvjobs.dataset import typed

NAME = "manifest.parquet"


@dataclass(frozen=True, kw_only=True)
class FolderKind:
    """What is in a folder: ``things``, in files that end in ``suffix``.

    ``option`` is how a user names the folder, ``own`` is our folder in it.
    """

    things: str
    option: str
    own: str
    suffix: str


MASKS = FolderKind(things="masks", option="--masks-dir", own=".cvjobs-masks", suffix=".png")
PICTURES = FolderKind(things="pictures", option="--save-images", own=".cvjobs-pictures", suffix=".jpg")

# ``file`` is what was made of ``path``, ``bytes`` its size, null until it is written. ``made_from`` digests the
# image's content and what made the file of it.
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("made_from", pa.binary(16), nullable=False),
        pa.field("bytes", pa.int64()),
    ]
)


@contextmanager
def alone(kind: FolderKind, folder: Path) -> Iterator[None]:
    """Make the folder and keep other runs from writing to it; raises OutputHeld where one does.

    What a killed run was just writing is removed.
    """
    own = folder / kind.own
    own.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(own, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputHeld(
                f"Another run writes {kind.things} to {folder}: wait for its end, or choose another {kind.option}."
            ) from None
        except OSError:  # a file system without locks
            pass
        for left in own.glob("*.tmp"):
            left.unlink()
        yield
    finally:
        os.close(descriptor)


def read(kind: FolderKind, folder: Path, output: str) -> pa.Table:
    """Return the manifest of a folder, empty where there is none.

    Raises:
        WrongUse: the files are another output's.
        JobFailed: the manifest is damaged.
    """
    file = folder / kind.own / NAME
    try:
        with file.open("rb") as content:
            found = pq.ParquetFile(content, page_checksum_verification=True).read(use_threads=False)
        owner = os.fsdecode(found.schema.metadata[b"cvjobs.output"])
        found = found.select(SCHEMA.names).cast(SCHEMA)
        for name in found["file"].to_pylist():
            typed.plain(name)  # a file of that name may be deleted
    except FileNotFoundError:
        return SCHEMA.empty_table()
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise JobFailed(
            f"{file} is damaged: delete it, and the same command writes all {kind.things} again."
        ) from error
    if owner != output:
        raise WrongUse(
            f"{folder} holds the {kind.things} of {owner}: choose another {kind.option}, or delete its {kind.own} to "
            "replace them."
        )
    return found


def write(kind: FolderKind, folder: Path, output: str, table: pa.Table, categories: Sequence[Category] = ()) -> None:
    """Replace the manifest, which names the classes of class maps; when this returns, it and all files are on disk."""
    os.sync()  # one for all of the many small files
    names = json.dumps([[category.id, category.name] for category in categories])
    metadata = {"cvjobs.output": os.fsencode(output), "cvjobs.categories": names}
    with _replacing(kind, folder, folder / kind.own / NAME) as temporary, temporary.open("wb") as file:
        pq.write_table(table.cast(SCHEMA.with_metadata(metadata)), file, compression="zstd", write_page_checksum=True)
        file.flush()
        os.fsync(file.fileno())


def put(kind: FolderKind, folder: Path, name: str, content: bytes) -> None:
    """Write one file, whole or not at all; several threads call it at once."""
    target = folder / name
    with _replacing(kind, folder, target) as temporary:
        temporary.write_bytes(content)
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)


def remove(folder: Path, name: str) -> None:
    """Remove a file that may be gone, and the folders that are empty then."""
    place = folder / name
    try:
        place.unlink()
        while (place := place.parent) != folder:
            place.rmdir()
    except FileNotFoundError:
        return
    except OSError:
        if os.path.lexists(folder / name):
            raise


@contextmanager
def _replacing(kind: FolderKind, folder: Path, target: Path) -> Iterator[Path]:
    temporary = folder / kind.own / f"{threading.get_ident()}.tmp"
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
