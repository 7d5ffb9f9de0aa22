"""The disks that a machine is to have by its ``/etc/fstab``: what is written below one that is not mounted is lost."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

LISTED, MOUNTED = "/etc/fstab", "/proc/self/mountinfo"
_OCTAL = re.compile(r"\\([0-7]{3})")  # how both files write a space


def missing(place: Path) -> str:
    """Return the mount point that a place is below, where it is listed and not mounted; else empty.

    A place where there is something already is as good as any.
    """
    points = [os.path.realpath(point) for point in _columns(LISTED, 1) if point.startswith("/")]
    real = os.path.realpath(place)
    above = [point for point in points if point != "/" and Path(real).is_relative_to(point)]
    if not above or _holds(real):
        return ""
    there = {os.path.realpath(point) for point in _columns(MOUNTED, 4)}
    return next((point for point in above if point not in there), "") if there else ""


def _columns(file: str, column: int) -> Iterator[str]:
    """Yield one column of a file of mounts; of a file that cannot be read, nothing."""
    try:
        lines = Path(file).read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        words = line.split()
        if len(words) > column and not words[0].startswith("#"):
            yield _OCTAL.sub(lambda found: chr(int(found[1], 8)), words[column])


def _holds(place: str) -> bool:
    try:
        return bool(os.listdir(place)) if os.path.isdir(place) else os.path.lexists(place)
    except OSError:
        return True
