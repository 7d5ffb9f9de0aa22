"""Where a Ray of this machine has its sockets and logs: in the folder of temporary files, else in another."""

from __future__ import annotations

import os
import shutil
import tempfile

from cvjobs.common import formatting
from cvjobs.common.errors import JobFailed, LimitReached

NAME = "ray"  # what Ray calls its folder in one of temporary files
# A socket's name has at most 107 bytes, of which Ray's own folders and names within this one take 66.
LONGEST = 107 - 66
ROOM = 16 << 20  # bytes: of a folder with less Ray waits half a minute for its own files
PLACES = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - Ray makes a folder of its own in them


def wanted() -> str:
    """Return the folder of temporary files that the environment names for Ray, which looks for them as here."""
    return os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", PLACES[0]))


def chosen() -> str | None:
    """Return the folder that Ray is to have, None where its own choice is a good one.

    Raises LimitReached where there is no room, JobFailed where no folder can be written to.
    """
    flaws = {wanted(): flaw(wanted())}
    if not flaws[wanted()]:
        return None
    for place in PLACES:
        if not flaws.setdefault(place, flaw(place)):
            return os.path.join(place, NAME)
    told = "; ".join(f"{place or 'an empty name'} {why}" for place, why in flaws.items())
    kind = LimitReached if all("room" in why for why in flaws.values()) else JobFailed
    raise kind(f"There is no folder for Ray's files ({told}): name a good one in RAY_TMPDIR, then run the same again.")


def flaw(place: str) -> str:
    """Return why Ray cannot have its folder in a place, "" where it can."""
    folder = os.path.join(place, NAME)
    if not os.path.isabs(place):
        return "is no absolute name"
    if not folder.isascii():
        return "has letters that Ray cannot read"
    if len(folder) > LONGEST:
        return f"is longer than the {LONGEST - len(NAME) - 1} letters that a socket's name leaves"
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            left = shutil.disk_usage(folder).free
    except OSError as error:
        return f"cannot be written to ({error.strerror})"
    return f"has no room ({formatting.size(left)})" if left < ROOM else ""
