"""What became of the images of a chunk, which another thread or process decodes: waited for where it is not there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cvjobs.common.errors import JobFailed
from cvjobs.dataset import sealed_table
from cvjobs.dataset.sealed_table import TableGone, UnreadableTable
from cvjobs.storage.local_store import LocalStore
from cvjobs.training.data.chunk_pixels import ROWS
from cvjobs.training.plan import SplitPart

OUTCOMES = "_cvjobs/outcomes"  # in a run of which each machine decodes for its workers
POLL = 0.05  # seconds between two looks for a chunk


def outcome_table(name: str) -> str:
    """Return the name of the table of a run that has what became of the images of a split, until the run ends."""
    return f"{OUTCOMES}/{name}.parquet"


def nothing() -> None:
    """Do nothing."""


def outcome(folders: Sequence[str], glance: Callable[[], None] = nothing) -> tuple[str, pa.Table]:
    """Return in which of some folders a chunk is, when it is there, and its rows.

    ``glance`` is called until then, and may raise. Raises:
        JobFailed: it is damaged.
    """
    while True:
        for folder in folders:
            try:
                return folder, sealed_table.read(LocalStore(folder), ROWS)
            except TableGone:
                continue
            except UnreadableTable as error:
                raise JobFailed(f"{folder} {error.words}: the same command decodes it anew.") from None
        glance()
        time.sleep(POLL)


def known(part: SplitPart, glance: Callable[[], None] = nothing) -> SplitPart:
    """Return the images of a split that could be decoded, when all of them are known; see ``outcome``."""
    decoded = part.decoded
    if not decoded.pending:
        return part
    codes = [outcome([folder], glance)[1]["code"].combine_chunks() for folder in decoded.folders]
    return good_of(part, pa.chunked_array(codes))


def good_of(part: SplitPart, codes: pa.ChunkedArray) -> SplitPart:
    """Return the images of a split that could be decoded, given the codes of all of them."""
    decoded, good = part.decoded, good_rows(codes)
    return SplitPart(
        decoded=replace(decoded, rows=good, pending=False),
        paths=[part.paths[number] for number in good.tolist()],
        labels=part.labels[good],
        objects=None if part.objects is None else part.objects.take(good),
    )


def good_rows(codes: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the numbers of the images that could be decoded, given the codes of all of them."""
    return np.flatnonzero(np.asarray(codes.is_null()))
