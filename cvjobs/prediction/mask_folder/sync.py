"""A folder of masks, a PNG an image, kept at what the newest snapshot of an output holds.

It is derived: whatever a kill or a full disk leaves of it, the same command completes. The manifest names every file
before it is written, so that none is ever forgotten.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cvjobs.common.errors import WrongUse, storage_failure
from cvjobs.common.formatting import counted
from cvjobs.common.progress import Progress
from cvjobs.common.signals import stoppable
from cvjobs.dataset import contents, schema
from cvjobs.dataset.schema import CLASS_MAP, DETECTIONS
from cvjobs.dataset.snapshot_reader import SnapshotReader, open_newest
from cvjobs.images.masks import png, rle
from cvjobs.prediction.mask_folder import manifest
from cvjobs.prediction.mask_folder.naming import mask_file
from cvjobs.prediction.summary import Summary
from cvjobs.storage.object_store import address
from cvjobs.storage.storage_options import parse_options
from cvjobs.storage.store import LocalStore, check_links, open_store

FORMAT = b"1"  # of what is in a mask
THREADS = 4
EVERY = 60.0  # s between two manifests: what a kill costs at most
DEEPEST = np.iinfo(np.uint16).max


@dataclass(frozen=True, kw_only=True)
class Masked(Summary):
    """What a run did that keeps a folder of masks, too; ``masks`` counts those it wrote."""

    masks: int
    masks_dir: str

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.masks_dir}: {counted(self.masks, 'masks')} written"


def check(place: str, source: str, out: str) -> Path:
    """Return the folder that masks can go to; raises WrongUse, before anything is computed, where they cannot."""
    if not place:
        raise WrongUse("--masks-dir is empty: name a folder.")
    if "://" in place:
        raise WrongUse(f"--masks-dir {place} is no folder of this machine: name one, and copy it from there.")
    check_links(Path(os.path.expanduser(place)).absolute(), "--masks-dir")
    folder = Path(os.path.realpath(os.path.expanduser(place)))
    above = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not above.is_dir():
        raise WrongUse(f"{above} is a file: name another folder with --masks-dir.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise storage_failure(PermissionError(13, "Permission denied"), str(above), "--masks-dir")
    images = os.path.realpath(os.path.expanduser(source))
    if os.path.isdir(images) and folder.is_relative_to(images) and not _hidden(folder.relative_to(images)):
        raise WrongUse(f"Masks in {folder} would be images of {source}: choose a --masks-dir outside of it.")
    root = os.path.realpath(os.path.expanduser(out.removeprefix("file://")))
    own = [Path(root, name) for name in (schema.DATA, schema.ERRORS, "_cvjobs")]
    if not address(out) and (str(folder) == root or any(folder.is_relative_to(one) for one in own)):
        raise WrongUse(f"{folder} is for the output's own files: choose another --masks-dir, such as {root}/masks.")
    if not (folder / manifest.OWN).exists():
        contents.check(LocalStore(folder), contents.MASKS, "choose another --masks-dir")
    return folder


def _hidden(place: Path) -> bool:
    return any(part.startswith((".", "_")) for part in place.parts)


def complete(done: Summary, folder: Path, storage_options: Sequence[str]) -> Masked:
    """Bring the folder to the newest snapshot of a run's output and return what was done.

    Raises:
        WrongUse: the folder cannot be written to, or holds the masks of another output.
        JobFailed: reading or writing failed, or another run replaced the snapshot meanwhile.
        OutputHeld: another run is writing masks there.
    """
    store = open_store(done.out, options=parse_options(storage_options))
    reader = open_newest(store)
    again = reader.unless_replaced("run the same command again for its masks")
    masks = _Folder(folder, reader)
    try:
        with again, Progress("masks") as progress, stoppable(), manifest.alone(folder):
            progress.phase("masks", "writing the masks")
            written = masks.update(progress.counting)
            done = done.at(progress.phases.spent())
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        way = error.filename2 or error.filename
        raise WrongUse(f"{way} is in the way of a mask: move it, or choose another --masks-dir.") from error
    except OSError as error:
        raise storage_failure(error, str(folder), "--masks-dir", begun=masks.begun) from error
    return Masked(**vars(done), masks=written, masks_dir=str(folder))


def instance_map(rles: Sequence[str], height: int, width: int) -> NDArray[Any]:
    """Return the number of the object in each pixel, (height, width), uint8 or above 255 objects uint16.

    They count from 1 in their order, and of two in one pixel it is the first's; 0 is none.
    """
    numbers = np.zeros((height, width), np.uint8 if len(rles) <= np.iinfo(np.uint8).max else np.uint16)
    for number in range(min(len(rles), DEEPEST), 0, -1):
        crop, (top, left) = rle.decode_crop(rles[number - 1], height, width)
        below = numbers[top : top + crop.shape[0], left : left + crop.shape[1]]
        below[crop.astype(bool)] = number
    return numbers


class _Folder:
    """One update of a folder."""

    def __init__(self, folder: Path, reader: SnapshotReader) -> None:
        self._folder, self._reader, self.begun = folder, reader, False
        place = reader.store.place
        self._output = place if address(place) else os.path.realpath(place)

    def update(self, counting: Callable[[int], Callable[[int], None]]) -> int:
        """Write what is new, changed or missing, remove what is gone, and return how many masks were written."""
        earlier = manifest.read(self._folder, self._output)
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
        for count, (row, size) in enumerate(self._put(names, stale), 1):
            sizes[row] = size
            tell(count)
            if time.monotonic() - noted > EVERY:
                self._note(wanted, sizes)
                noted = time.monotonic()
        self._note(wanted, sizes)
        return len(stale)

    def _note(self, wanted: pa.Table, sizes: NDArray[np.int64], gone: pa.Table | None = None) -> None:
        table = wanted.append_column("bytes", pa.array(sizes, mask=sizes < 0))
        manifest.write(self._folder, self._output, pa.concat_tables([table, gone]) if gone is not None else table)
        self.begun = True

    def _wanted(self) -> pa.Table:
        """Return what the manifest shall say of each row of the snapshot, in their order, but for ``bytes``."""
        fields = [field for field in manifest.SCHEMA if field.name != "bytes"]
        made_by = FORMAT + self._reader.snapshot.fingerprint.encode()
        tables = []
        for _, rows in self._reader.groups(["path", "content_hash", "version"]):
            contents = zip(rows["content_hash"].to_pylist(), rows["version"].to_pylist(), strict=True)
            made_from = [
                hashlib.blake2b(made_by + (content or b"%d" % version), digest_size=16).digest()
                for content, version in contents
            ]
            files = [mask_file(path) for path in rows["path"].to_pylist()]
            tables.append(
                pa.table([rows["path"], pa.array(files), pa.array(made_from, pa.binary(16))], pa.schema(fields))
            )
        return pa.concat_tables(tables) if tables else pa.schema(fields).empty_table()

    def _sizes(self, wanted: pa.Table, earlier: pa.Table) -> NDArray[np.int64]:
        """Return how many bytes the mask of each row has; -1 where it is to be written."""
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

    def _put(self, names: pa.ChunkedArray, stale: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Write the masks of these rows, and yield for each its row and its size in bytes."""
        columns = [CLASS_MAP] if self._reader.task == "semantic" else ["height", "width", DETECTIONS]
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="masks")
        try:
            for first, table in self._reader.groups(columns, stale):

                def one(row: int, table: pa.Table = table, at: int = first) -> tuple[int, int]:
                    content = self._content(table, row)
                    manifest.put(self._folder, names[at + row].as_py(), content)
                    return at + row, len(content)

                yield from threads.map(one, _between(stale, first, table.num_rows).tolist())
        finally:
            threads.shutdown(cancel_futures=True)

    def _content(self, table: pa.Table, row: int) -> bytes:
        if self._reader.task == "semantic":
            content: bytes = table[CLASS_MAP][row].as_py()
            return content
        rles = [found["rle"] for found in table[DETECTIONS][row].as_py() or ()]
        return png.encode(instance_map(rles, table["height"][row].as_py(), table["width"][row].as_py()))


def _size(file: str) -> int:
    try:
        return os.lstat(file).st_size
    except (FileNotFoundError, NotADirectoryError):
        return -1


def _between(rows: NDArray[np.int64], first: int, count: int) -> NDArray[np.int64]:
    """Return those of sorted rows that are among ``count`` rows from ``first`` on, counted from it."""
    begin, end = np.searchsorted(rows, [first, first + count])
    return rows[begin:end] - first
