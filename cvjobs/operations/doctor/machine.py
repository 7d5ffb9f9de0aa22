"""Whether the machine leaves a job enough room: disk, shared memory, open files."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cvjobs.operations.doctor.finding import Finding

DISK = 2 << 30
SHARED = 1 << 30
FILES = 4096
_GIB = 1 << 30


def check() -> Iterator[Finding]:
    """Look at the free space of the working folder and of the temporary one, at /dev/shm, and at open files."""
    for folder in dict.fromkeys((Path.cwd(), Path(tempfile.gettempdir()))):
        yield from _space(folder, DISK, "Make room there, or put outputs (and TMPDIR) on a larger disk.")
    shared = Path("/dev/shm")  # noqa: S108 - that is where Ray keeps its objects
    if shared.is_dir():
        fix = "Give it more: 'mount -o remount,size=8G /dev/shm', --shm-size=8g of docker, a Memory volume of a pod."
        yield from _space(shared, SHARED, fix)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        fix = f"Run: ulimit -n {FILES if hard == resource.RLIM_INFINITY else min(65_536, hard)}."
        yield Finding.warning("machine", f"only {soft:,} files may be open: Ray and object storage need more", fix)
    else:
        yield Finding.ok("machine", "enough files may be open" if soft < 0 else f"{soft:,} files may be open")


def _space(folder: Path, least: int, fix: str) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    what = f"{folder} has {free / _GIB:,.1f} GiB free"
    if not os.access(folder, os.W_OK):
        yield Finding.warning(
            "machine", f"{folder} cannot be written to", "Make it writable (chmod u+w), or use another folder."
        )
    elif free < least:
        yield Finding.warning("machine", what, fix)
    else:
        yield Finding.ok("machine", what)
