"""A finished output in the format of other programs: `--format NAME` is a module of ``exports/``.

A format module has ``TASKS``, what it has a place for, ``UNIT``, what it counts, and ``write``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.common import categories as common_categories
from cvjobs.common import plugins
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import counted
from cvjobs.common.plugins import BrokenPlugin
from cvjobs.common.tabular import Readable
from cvjobs.dataset import contents, schema
from cvjobs.dataset.snapshot_reader import EMBED, SnapshotReader, open_newest
from cvjobs.storage.object_store import address
from cvjobs.storage.storage_options import Options
from cvjobs.storage.store import file_at, named, open_store

AT_ONCE = 256  # images as Python's values

HELD = {
    EMBED: "vectors",
    "classify": "labels",
    "detect": "boxes",
    "instance": "masks of objects",
    "semantic": "class maps",
}


@dataclass(frozen=True, kw_only=True)
class ExportedOutput:
    """The newest snapshot of an output, streamed; ``categories`` are those of what there is to see.

    ``contiguous`` asks for categories that count from the format's first number instead of the rows' own ids.
    ``counting`` takes the number of images of a pass, and returns what is told how many of them it has seen.
    """

    reader: SnapshotReader
    categories: list[Category]
    options: Options
    contiguous: bool
    counting: Callable[[int], Callable[[int], None]]

    @property
    def task(self) -> str:
        """What the results are; ``embed`` for vectors."""
        return self.reader.task

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Yield these columns of all rows, a few images at a time, always in the same order."""
        seen, tell = 0, self.counting(len(self.reader))
        for _, group in self.reader.groups(columns):
            for first in range(0, group.num_rows, AT_ONCE):
                table = group.slice(first, AT_ONCE)
                yield table
                tell(seen := seen + table.num_rows)

    def ranks(self) -> npt.NDArray[np.int64]:
        """Return for each row, in the order of ``tables``, where its path is among all paths, from 1."""
        columns = [table["path"] for table in self.reader.tables(["path"])]
        paths = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
        ranks = np.empty(len(paths), np.int64)
        ranks[pc.sort_indices(paths).to_numpy()] = np.arange(1, len(paths) + 1)
        return ranks


@dataclass(frozen=True, kw_only=True)
class Exported(Readable):
    """What was written: ``written`` counts things of the format's own ``unit``, ``failed`` images are not in it."""

    format: str
    to: str
    out: str
    version: int
    images: int
    failed: int
    written: int
    unit: str

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return dict(vars(self))

    def __str__(self) -> str:
        lines = [f"{counted(self.images, 'images')}, {counted(self.written, self.unit)}"]
        if self.failed:
            lines.append(f"  failed {self.failed:,}, which are not in it: {self.out}/errors")
        lines.append(f"{self.to} from snapshot {self.version}")
        return "\n".join(lines)


class ExportFormat(Protocol):
    """What a module of ``exports/`` offers."""

    TASKS: tuple[str, ...]
    UNIT: str

    def write(self, output: ExportedOutput, to: str) -> int:
        """Write the output under that name, whole or not at all, and return how many things it has now."""


def formats() -> list[str]:
    """Return the formats, the files of ``exports/``."""
    return plugins.names("cvjobs.dataset.exports")


def settled(name: str) -> str:
    """Return the name of a format that a user gave, who may write ``COCO``."""
    return name if name in formats() else name.lower()


def find(name: str) -> ExportFormat:
    """Return the module of a format; raises WrongUse with the nearest name where there is none, or BrokenPlugin."""
    found = plugins.load("cvjobs.dataset.exports", "format", name, needs=("TASKS", "UNIT", "write"))
    return cast(ExportFormat, found)


def fitting(task: str) -> list[str]:
    """Return the formats that have a place for the results of a task, without those that cannot be used."""
    found = []
    for name in formats():
        with contextlib.suppress(BrokenPlugin):
            if task in find(name).TASKS:
                found.append(name)
    return found


def open_output(
    place: str, options: Options, *, contiguous: bool, counting: Callable[[int], Callable[[int], None]]
) -> ExportedOutput:
    """Open the newest snapshot of an output; raises WrongUse where there is none."""
    reader = open_newest(open_store(place, options=options))
    return ExportedOutput(
        reader=reader,
        categories=common_categories.things(reader.snapshot.facts),
        options=options,
        contiguous=contiguous,
        counting=counting,
    )


def write(output: ExportedOutput, name: str, to: str) -> Exported:
    """Write an output in a format, whole or not at all.

    Raises:
        WrongUse: the format has no place for what the output holds, or nothing can be written there.
        JobFailed: writing or reading failed, or another run replaced the snapshot meanwhile.
    """
    format_ = find(name)
    if output.task not in format_.TASKS:
        raise WrongUse(
            f"{output.reader.store.place} holds {HELD.get(output.task, output.task)}, for which {name} has no place: "
            f"choose --format {' or '.join(fitting(output.task))}."
        )
    _check_place(output, to)
    with output.reader.unless_replaced("export again"):
        written = format_.write(output, to)
    return Exported(
        format=name,
        to=to,
        out=output.reader.store.place,
        version=output.reader.snapshot.version,
        images=output.reader.snapshot.ok,
        failed=output.reader.snapshot.failed,
        written=written,
        unit=format_.UNIT,
    )


def publish(output: ExportedOutput, to: str, fill: Callable[[BinaryIO], None]) -> None:
    """Write a file that has no room for its origin, and that beside it, with the file's sha256."""
    store, name = file_at(to, output.options)
    file_at(f"{to}.origin.json", output.options)  # a name that is too long is refused before anything is written
    written = store.write(name, fill)
    store.write_bytes(f"{name}.origin.json", schema.pack({**output.reader.origin, "file": name, **vars(written)}))


def _check_place(output: ExportedOutput, to: str) -> None:
    """Refuse a place among the files that make up the output."""
    own = [f"{output.reader.store.place}/{folder}" for folder in (schema.DATA, schema.ERRORS, "_cvjobs")]
    place = to if address(to) else os.path.realpath(os.path.expanduser(to))
    for folder in own:
        inside = folder if address(folder) else os.path.realpath(folder)
        if place == inside or place.startswith(f"{inside}/"):
            raise WrongUse(f"{to} is inside the output that is exported: choose another -o.")
    contents.check_part(named(to, output.options))
