"""When `cvjobs verify` last found an output exact: a note beside it, for the runs that have nothing to do."""

from __future__ import annotations

import time
from contextlib import suppress

from cvjobs.common import formatting
from cvjobs.common.errors import CvjobsError
from cvjobs.dataset import sealed
from cvjobs.dataset.holder import LAST
from cvjobs.storage.store import Store

FILE = "_cvjobs/verified.json"


def note(store: Store, version: int) -> None:
    """Note that a snapshot is exact now; an output that cannot be written to is verified all the same."""
    with suppress(CvjobsError):
        store.write_bytes(FILE, sealed.pack({"version": version, "at": time.time()}))


def forget(store: Store) -> None:
    """Note that a check found an output not to be exact."""
    with suppress(CvjobsError):
        store.delete(FILE)


def words(store: Store) -> str:
    """Return when the output was last found exact, as a sentence without its full stop."""
    try:
        record = sealed.unpack(store.read(FILE)) or {}
    except FileNotFoundError:
        record = {}
    version, at = record.get("version"), record.get("at")
    if not isinstance(version, int) or not isinstance(at, int | float) or not 0 <= at <= LAST:
        return "`cvjobs verify`, which reads what earlier runs wrote, has not found this output exact yet"
    return f"`cvjobs verify` last found it exact on {formatting.date(at)} (snapshot {version})"
