"""How long a listing takes and how much memory, next to a bare walk of the same tree.

python benchmarks/listing.py [--images N]
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from photos import MODIFIED
from processes import two_cores
from table import Row, noisy, show

FILES_A_FOLDER = 300


def make_tree(root: Path, count: int) -> None:
    """Make ``count`` empty ``.jpg`` files below ``root``."""
    for first in range(0, count, FILES_A_FOLDER):
        folder = root / f"shelf_{first // 100_000:03d}" / f"box_{first:08d}"
        folder.mkdir(parents=True)
        for number in range(first, min(first + FILES_A_FOLDER, count)):
            descriptor = os.open(f"{folder}/photo_{number:08d}.jpg", os.O_CREAT | os.O_WRONLY)
            os.utime(descriptor, (MODIFIED, MODIFIED))
            os.close(descriptor)


def bare_walk(root: str) -> int:
    """Visit and stat every file, and do nothing else: the least a listing in Python can take."""
    found, stack = 0, [os.fsencode(root)]
    while stack:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
                else:
                    entry.stat()
                    found += 1
    return found


def full_listing(root: str) -> int:
    """List with cvjobs."""
    from cvjobs.sources.listing import list_source

    return len(list_source(root).images)


def rows(root: Path, count: int) -> list[Row]:
    """Measure both walks of a tree of ``count`` files in turn, twice; the slower listing counts."""
    bare_walk(str(root))  # into the directory cache
    runs = [_measured(walk, str(root)) for walk in (bare_walk, full_listing, bare_walk, full_listing)]
    assert {found for found, _, _ in runs} == {count}
    bare, full = [seconds for _, seconds, _ in runs[::2]], [seconds for _, seconds, _ in runs[1::2]]
    raw = {"listing_seconds": full, "bare_walk_seconds": bare}
    unsteady = noisy(*bare)
    what = f"listing {count:,} files"
    peak = max(mib for _, _, mib in runs[1::2])
    return [
        Row(what=what, value=max(full), unit="s", bound="≤", target=15, noisy=unsteady, raw=raw),
        Row(what=f"{what}: peak memory", value=peak, unit="MiB", bound="≤", target=500),
    ]


def _measured(walk: Callable[[str], int], root: str) -> tuple[int, float, float]:
    """Run one walk in a new process: files, seconds (imports included) and peak RSS in MiB."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(walk, root, sender))
    child.start()
    sender.close()
    result: tuple[int, float, float] = receiver.recv()
    child.join()
    return result


def _measure(walk: Callable[[str], int], root: str, sender: Connection) -> None:
    began = time.perf_counter()
    found = walk(root)
    seconds = round(time.perf_counter() - began, 2)
    sender.send((found, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Make a tree, measure, print the table and return its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000, help="how many files (default 1,000,000)")
    options = parser.parse_args(arguments)
    two_cores()
    with tempfile.TemporaryDirectory(prefix="cvjobs-listing-") as root:
        make_tree(Path(root), options.images)
        found = rows(Path(root), options.images)
    show(found)
    return found


if __name__ == "__main__":
    main()
