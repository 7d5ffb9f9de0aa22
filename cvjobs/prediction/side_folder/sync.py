"""A folder with a file an image, kept at what the newest snapshot of an output holds.

It is derived: whatever a kill or a full disk leaves of it, the same command completes. The manifest names every file
before it is written, so that none is ever forgotten.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cvjobs.common.errors import WrongUse, storage_failure
from cvjobs.common.progress import Progress
from cvjobs.common.signals import stoppable
from cvjobs.dataset import contents, schema
from cvjobs.dataset.snapshot_reader import SnapshotReader
from cvjobs.prediction.side_folder import manifest
from cvjobs.prediction.side_folder.manifest import FolderKind
from cvjobs.prediction.side_folder.naming import file_name
from cvjobs.storage.object_store import address
from cvjobs.storage.store import LocalStore, check_folder

EVERY = 60.0  # s between two manifests: what a kill costs at most


class Maker(Protocol):
    """What makes the files: ``version`` of what is in them, and the ``columns`` of the rows that they are made of."""

    version: bytes
    columns: list[str]

    def make(self, table: pa.Table, rows: list[int], put: Callable[[int, bytes], None]) -> Iterator[int]:
        """Make the files of these rows of a table, give each to ``put``, and yield the rows as they are done.

        ``put`` may be called by several threads. A row whose file cannot be made is not put.
        """


def check(kind: FolderKind, place: str, source: str, out: str) -> Path:
    """Return the folder that files can go to; raises WrongUse, before anything is computed, where they cannot."""
    option, things = kind.option, kind.things
    if not place:
        raise WrongUse(f"{option} is empty: name a folder.")
    if "://" in place:
        raise WrongUse(f"{option} {place} is no folder of this machine: name one, and copy it from there.")
    check_folder(Path(os.path.expanduser(place)).absolute(), option)
    folder = Path(os.path.realpath(os.path.expanduser(place)))
    above = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        raise storage_failure(PermissionError(13, "Permission denied"), str(above), option)
    images = os.path.realpath(os.path.expanduser(source))
    if os.path.isdir(images) and folder.is_relative_to(images) and not _hidden(folder.relative_to(images)):
        raise WrongUse(f"{things.title()} in {folder} would be images of {source}: choose a {option} outside of it.")
    root = os.path.realpath(os.path.expanduser(out.removeprefix("file://")))
    own = [Path(root, name) for name in (schema.DATA, schema.ERRORS, "_cvjobs")]
    if not address(out) and (str(folder) == root or any(folder.is_relative_to(one) for one in own)):
        raise WrongUse(f"{folder} is for the output's own files: choose another {option}, such as {root}/{things}.")
    for other in (manifest.MASKS, manifest.PICTURES):
        if other != kind and (folder / other.own).exists():
            raise WrongUse(f"{folder} holds {other.things}: choose another {option}.")
    if not (folder / kind.own).exists():
        contents.check(LocalStore(folder), contents.MASKS, f"choose another {option}")
    return folder


def _hidden(place: Path) -> bool:
    return any(part.startswith((".", "_")) for part in place.parts)


def complete(kind: FolderKind, folder: Path, reader: SnapshotReader, maker: Maker) -> int:
    """Bring a folder to a snapshot and return how many files were written.

    Raises:
        WrongUse: the folder cannot be written to, or holds the files of another output.
        JobFailed: reading or writing failed, or another run replaced the snapshot meanwhile.
        OutputHeld: another run is writing there.
    """
    again = reader.unless_replaced(f"run the same command again for its {kind.things}")
    update = _Update(kind, folder, reader, maker)
    try:
        with again, Progress(kind.things) as progress, stoppable(), manifest.alone(kind, folder):
            progress.phase(kind.things, f"writing the {kind.things}")
            return update.run(progress.counting)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        way = error.filename2 or error.filename
        thing = kind.things.removesuffix("s")
        raise WrongUse(f"{way} is in the way of a {thing}: move it, or choose another {kind.option}.") from error
    except OSError as error:
        raise storage_failure(error, str(folder), kind.option, begun=update.begun) from error


class _Update:
    """One update of a folder."""

    def __init__(self, kind: FolderKind, folder: Path, reader: SnapshotReader, maker: Maker) -> None:
        self._kind, self._folder, self._reader, self._maker = kind, folder, reader, maker
        self.begun = False
        place = reader.store.place
        self._output = place if address(place) else os.path.realpath(place)

    def run(self, counting: Callable[[int], Callable[[int], None]]) -> int:
        """Write what is new, changed or missing, remove what is gone, and return how many files were written."""
        earlier = manifest.read(self._kind, self._folder, self._output)
        wanted = self._wanted()
        sizes = self._sizes(wanted, earlier)
        stale = np.flatnonzero(sizes < 0)
        gone = earlier.filter(pc.invert(pc.is_in(earlier["file"], value_set=wanted["file"])))
        if not len(stale) and not gone.num_rows:
            return 0
        self._note(wanted, sizes, gone)
        for name in gone["file"].to_pylist():
            manifest.remove(self._folder, name)
        names, tell, noted = wanted["file"], counting(len(stale)), time.monotonic()
        for count, _ in enumerate(self._put(names, stale, sizes), 1):
            tell(count)
            if time.monotonic() - noted > EVERY:
                self._note(wanted, sizes)
                noted = time.monotonic()
        for row in stale[sizes[stale] < 0].tolist():  # of an earlier state of the image, perhaps
            manifest.remove(self._folder, names[row].as_py())
        self._note(wanted, sizes)
        return int((sizes[stale] >= 0).sum())

    def _note(self, wanted: pa.Table, sizes: NDArray[np.int64], gone: pa.Table | None = None) -> None:
        table = wanted.append_column("bytes", pa.array(sizes, mask=sizes < 0))
        whole = pa.concat_tables([table, gone]) if gone is not None else table
        classes = self._reader.categories if self._reader.task == "semantic" else []
        manifest.write(self._kind, self._folder, self._output, whole, classes)
        self.begun = True

    def _wanted(self) -> pa.Table:
        """Return what the manifest shall say of each row of the snapshot, in their order, but for ``bytes``."""
        fields = [field for field in manifest.SCHEMA if field.name != "bytes"]
        made_by = self._maker.version + self._reader.snapshot.fingerprint.encode()
        tables = []
        for _, rows in self._reader.groups(["path", "content_hash", "version"]):
            contents = zip(rows["content_hash"].to_pylist(), rows["version"].to_pylist(), strict=True)
            made_from = [
                hashlib.blake2b(made_by + (content or b"%d" % version), digest_size=16).digest()
                for content, version in contents
            ]
            files = [file_name(path, self._kind.suffix) for path in rows["path"].to_pylist()]
            tables.append(
                pa.table([rows["path"], pa.array(files), pa.array(made_from, pa.binary(16))], pa.schema(fields))
            )
        return pa.concat_tables(tables) if tables else pa.schema(fields).empty_table()

    def _sizes(self, wanted: pa.Table, earlier: pa.Table) -> NDArray[np.int64]:
        """Return how many bytes the file of each row has; -1 where it is to be written."""
        places = pc.index_in(wanted["file"], value_set=earlier["file"])
        then = earlier.select(["made_from", "bytes"]).take(places)
        same = pc.fill_null(pc.equal(then["made_from"], wanted["made_from"]), False)
        sizes: NDArray[np.int64] = pc.fill_null(pc.if_else(same, then["bytes"], -1), -1).to_numpy().copy()
        root, row = str(self._folder), 0
        for chunk in wanted["file"].chunks:
            for name in chunk.to_pylist():
                if sizes[row] >= 0 and _size(f"{root}/{name}") != sizes[row]:
                    sizes[row] = -1
                row += 1
        return sizes

    def _put(self, names: pa.ChunkedArray, stale: NDArray[np.int64], sizes: NDArray[np.int64]) -> Iterator[int]:
        """Write the files of these rows, note the size of each in bytes, and yield each row when it is done."""
        for first, table in self._reader.groups(self._maker.columns, stale):

            def put(row: int, content: bytes, at: int = first) -> None:
                manifest.put(self._kind, self._folder, names[at + row].as_py(), content)
                sizes[at + row] = len(content)

            yield from self._maker.make(table, _between(stale, first, table.num_rows).tolist(), put)


def _size(file: str) -> int:
    try:
        return os.lstat(file).st_size
    except (FileNotFoundError, NotADirectoryError):
        return -1


def _between(rows: NDArray[np.int64], first: int, count: int) -> NDArray[np.int64]:
    """Return those of sorted rows that are among ``count`` rows from ``first`` on, counted from it."""
    begin, end = np.searchsorted(rows, [first, first + count])
    return rows[begin:end] - first
