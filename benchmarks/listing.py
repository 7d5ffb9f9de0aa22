"""List a tree of N empty files in a child process, next to a bare walk of the same tree: one JSON line.

python benchmarks/listing_bench.py [N]       (default 1,000,000; 300 files a folder)
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

FILES_A_FOLDER = 300


def make_tree(root: str, count: int) -> None:
    """Make ``count`` empty ``.jpg`` files below ``root``."""
    for first in range(0, count, FILES_A_FOLDER):
        folder = Path(root, f"shelf_{first // 100_000:03d}", f"box_{first:08d}")
        folder.mkdir(parents=True)
        for number in range(first, min(first + FILES_A_FOLDER, count)):
            os.close(os.open(f"{folder}/photo_{number:08d}.jpg", os.O_CREAT | os.O_WRONLY))


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
    from cvjobs.listing import list_source

    return len(list_source(root).images)


def measured(walk: Callable[[str], int], root: str) -> dict[str, float]:
    """Run one walk in a new process: its images, seconds (imports included) and peak RSS in MiB."""
    receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
    child = multiprocessing.get_context("spawn").Process(target=_measure, args=(walk, root, sender))
    child.start()
    result: dict[str, float] = receiver.recv()
    child.join()
    return result


def _measure(walk: Callable[[str], int], root: str, sender: multiprocessing.connection.Connection) -> None:
    began = time.perf_counter()
    found = walk(root)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sender.send({"images": found, "seconds": seconds, "mib": peak})


def main() -> None:
    """Make the tree, warm the directory cache, measure both walks in turn twice and keep the faster of each."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    root = tempfile.mkdtemp(prefix="cvjobs-listing-")
    try:
        make_tree(root, count)
        bare_walk(root)
        bare = [measured(bare_walk, root)]
        full = [measured(full_listing, root)]
        bare.append(measured(bare_walk, root))
        full.append(measured(full_listing, root))
    finally:
        shutil.rmtree(root)
    assert {run["images"] for run in bare + full} == {count}
    seconds, bare_seconds = (min(run["seconds"] for run in runs) for runs in (full, bare))
    line = {
        "benchmark": "listing",
        "images": count,
        "seconds": round(seconds, 2),
        "peak_mib": round(max(run["mib"] for run in full)),
        "bare_walk_seconds": round(bare_seconds, 2),
        "ratio": round(seconds / bare_seconds, 2),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
