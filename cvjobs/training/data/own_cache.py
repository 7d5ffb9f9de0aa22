"""Where the decoded images of a run are: in its folder, or for a run in a bucket in a folder of this machine's own."""

from __future__ import annotations

from cvjobs.common.errors import WrongUse
from cvjobs.storage import machine_cache
from cvjobs.storage.local_store import LocalStore
from cvjobs.storage.object_store import address
from cvjobs.storage.store import Store

CACHE = "cache"  # in the folder of a run


def folder(store: Store, asked: str | None) -> str:
    """Return the folder for the decoded images of a run; ``asked`` is what ``--cache`` names.

    Raises:
        WrongUse: it is in a bucket.
    """
    if asked is not None and address(asked):
        raise WrongUse(f"--cache {asked} is in a bucket, and workers map what is there: name a folder.")
    if asked is not None:
        return asked
    if isinstance(store, LocalStore):
        return f"{store.place}/{CACHE}"
    return str(machine_cache.folder("decoded", store.place))
