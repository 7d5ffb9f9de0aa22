"""A folder of YOLO's labels: a text file an image, `class cx cy w h` a box, and `data.yaml` with the classes' names.

An image without a box has an empty file. There is no place for scores or masks.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from cvjobs.common.errors import WrongUse, storage_failure
from cvjobs.common.paths import path_bytes, path_text
from cvjobs.dataset.export import ExportedOutput
from cvjobs.dataset.schema import DETECTIONS
from cvjobs.storage.object_store import address
from cvjobs.storage.store import check_place

TASKS = ("detect", "instance")
UNIT = "boxes"

OURS = "# Made by `cvjobs export`, which may replace labels/ and this file.\n"
DATA, LABELS, ASIDE = "data.yaml", "labels", ".tmp-yolo-"


def write(output: ExportedOutput, to: str) -> int:
    """Write the folder and return how many boxes it has; raises WrongUse where another one is there.

    It is complete when it has its ``data.yaml``. What else is in it, such as ``images``, stays.
    """
    if address(to):
        raise WrongUse(f"{to} is no folder of this machine, and yolo's format is one: choose another -o.")
    check_place(Path(os.path.expanduser(to)).absolute(), "-o")
    folder = Path(os.path.expanduser(to)).resolve()
    aside = folder / f"{ASIDE}{secrets.token_hex(6)}"
    begun = False
    try:
        _check(folder)
        try:
            count = _labels(output, aside / LABELS)
            (aside / DATA).write_text(_data(output), "utf-8")
            os.sync()  # one for all of the many small files
            (folder / DATA).unlink(missing_ok=True)
            if (folder / LABELS).exists():
                (folder / LABELS).rename(aside / "old")
            (aside / LABELS).rename(folder / LABELS)
            (aside / DATA).rename(folder / DATA)
        finally:
            begun = aside.exists()
            shutil.rmtree(aside, ignore_errors=True)
            with suppress(OSError):  # it holds something
                folder.rmdir()
    except OSError as error:
        raise storage_failure(error, str(folder), begun=begun) from error
    return count


def _check(folder: Path) -> None:
    """Refuse to replace what this command did not make, and clear what a killed one left."""
    if not os.path.lexists(folder):
        return
    entries = list(folder.iterdir()) if folder.is_dir() else [folder]
    left = [entry for entry in entries if entry.name.startswith(ASIDE)]
    # A kill while the new labels are put in place leaves this file aside.
    ours = any(_is_ours(place / DATA) for place in (folder, *left))
    if len(left) < len(entries) and not ours:
        raise WrongUse(f"{folder} holds something else than a yolo export: choose another -o, or delete it.")
    for entry in left:
        shutil.rmtree(entry)


def _is_ours(data: Path) -> bool:
    return data.is_file() and data.read_bytes().startswith(OURS.encode())


def _data(output: ExportedOutput) -> str:
    origin = "".join(f"# {name}: {value!r}\n" for name, value in output.reader.origin.items())
    names = {number: category.name for number, category in enumerate(output.categories)}
    record = {"train": "images", "val": "images", "names": names}
    return OURS + origin + yaml.safe_dump(record, sort_keys=False, allow_unicode=True)


def _labels(output: ExportedOutput, folder: Path) -> int:
    """Write the label files and return how many boxes they have."""
    numbers = {category.id: number for number, category in enumerate(output.categories)}
    root = os.fsencode(folder)
    os.makedirs(root)
    count = 0
    for table in output.tables(["path", "width", "height", DETECTIONS]):
        for row in table.to_pylist():
            lines = [_line(numbers[found["category_id"]], found, row) for found in row[DETECTIONS] or ()]
            _put(os.path.join(root, label_file(row["path"])), "".join(lines), row["path"])
            count += len(lines)
    return count


def label_file(path: str) -> bytes:
    """Return the name below ``labels/`` for an image's path: never outside, whatever the path."""
    pieces = [piece for piece in path_bytes(path).split(b"/") if piece not in (b"", b".")] or [b"image"]
    inside = b"/".join(b"%2E%2E" if piece == b".." else piece for piece in pieces)
    return os.path.splitext(inside)[0] + b".txt"


def _put(file: bytes, content: str, path: str) -> None:
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "x", encoding="ascii") as out:
            out.write(content)
    except (FileExistsError, NotADirectoryError):
        raise WrongUse(
            f"{path} shares its label file {path_text(os.path.basename(file))} with another image, for yolo's have no "
            "suffix: rename one of them, or choose another --format."
        ) from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise WrongUse(f"The name {path[:80]}… is too long for a label file: choose another --format.") from None


def _line(number: int, found: dict[str, Any], row: dict[str, Any]) -> str:
    across, down = (_within(found[a] / row[side], found[b] / row[side]) for a, b, side in _SIDES)
    return f"{number} {across[0]:.6f} {down[0]:.6f} {across[1]:.6f} {down[1]:.6f}\n"


_SIDES = (("x0", "x1", "width"), ("y0", "y1", "height"))


def _within(low: float, high: float) -> tuple[float, float]:
    """Return centre and length of what of an interval is in 0..1."""
    low, high = min(max(low, 0), 1), min(max(high, 0), 1)
    return (low + high) / 2, high - low
