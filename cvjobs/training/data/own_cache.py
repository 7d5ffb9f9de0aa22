"""Where the decoded images of a run are: in its folder, or for a run in a bucket in a folder of this machine's own."""

from __future__ import annotations

from cvjobs.common.errors import WrongUse
from cvjobs.storage import machine_cache
from cvjobs.storage.object_store import address

CACHE = "cache"  # in the folder of a run


def folder(run: str, asked: str | None) -> str:
    """Return this machine's folder for the decoded images of a run; ``asked`` is what ``--cache`` names.

    Raises:
        WrongUse: it is in a bucket.
    """
    if asked is not None and address(asked):
        raise WrongUse(f"--cache {asked} is in a bucket, and workers map what is there: name a folder.")
    if asked is not None:
        return asked
    return str(machine_cache.folder("decoded", run)) if address(run) else f"{run}/{CACHE}"
