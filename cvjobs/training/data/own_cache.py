"""Where the decoded images of a run are: in its folder, or in a folder of each machine's own."""

from __future__ import annotations

import os

from cvjobs.common.errors import WrongUse
from cvjobs.storage import machine_cache
from cvjobs.storage.object_store import address

CACHE = "cache"  # in the folder of a run


def folder(run: str, asked: str | None) -> str:
    """Return where the machine of the command decodes for workers that see it, too; ``asked`` is ``--cache``.

    Raises:
        WrongUse: it is in a bucket.
    """
    if asked is not None and address(asked):
        raise WrongUse(f"--cache {asked} is in a bucket, and workers map what is there: name a folder.")
    return f"{run}/{CACHE}" if asked is None and not address(run) else of_machine(run, asked)


def of_machine(run: str, asked: str | None) -> str:
    """Return this machine's own folder for the decoded images of a run; ``asked`` is what ``--cache`` names.

    It is absolute: workers have working folders of their own.
    """
    return str(machine_cache.folder("decoded", run)) if asked is None else os.path.abspath(asked)
