"""What became of the images of a chunk, which another thread or process decodes: waited for where it is not there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa

from cvjobs.common.errors import JobFailed
from cvjobs.dataset import sealed_table
from cvjobs.dataset.sealed_table import TableGone, UnreadableTable
from cvjobs.storage.local_store import LocalStore
from cvjobs.training.data.chunk_pixels import ROWS
from cvjobs.training.plan import SplitPart

POLL = 0.05  # seconds between two looks for a chunk


def nothing() -> None:
    """Do nothing."""


def outcome(folder: str, glance: Callable[[], None] = nothing) -> pa.Table:
    """Return the rows of a chunk when it is there; ``glance`` is called until then, and may raise.

    Raises:
        JobFailed: it is damaged.
    """
    while True:
        try:
            return sealed_table.read(LocalStore(folder), ROWS)
        except TableGone:
            glance()
            time.sleep(POLL)
        except UnreadableTable as error:
            raise JobFailed(f"{folder} {error.words}: the same command decodes it anew.") from None


def known(part: SplitPart, glance: Callable[[], None] = nothing) -> SplitPart:
    """Return the images of a split that could be decoded, when all of them are known; see ``outcome``."""
    decoded = part.decoded
    if not decoded.pending:
        return part
    codes = [outcome(folder, glance)["code"].combine_chunks() for folder in decoded.folders]
    good = np.flatnonzero(np.asarray(pa.chunked_array(codes).is_null()))
    return SplitPart(
        decoded=replace(decoded, rows=good, pending=False),
        paths=[part.paths[number] for number in good.tolist()],
        labels=part.labels[good],
    )
