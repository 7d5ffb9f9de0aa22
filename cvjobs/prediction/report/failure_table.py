"""The failed images of an output by reason, with the first names of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.common.failures import CODES
from cvjobs.dataset import snapshot
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.storage.store import Store

NAMES = 12
_COLUMNS = ["path", "image_id", "bytes", "modified", "stage", "code", "detail"]


@dataclass
class Reason:
    """One error code: how many images have it, what to do, and the rows of the first ones."""

    code: str
    count: int = 0
    before: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def remedy(self) -> str:
        """What a user can do."""
        return CODES[self.code].remedy

    @property
    def retryable(self) -> bool:
        """Whether every run tries these images again."""
        return CODES[self.code].retryable

    @property
    def more(self) -> int:
        """How many images are not among the first ones."""
        return self.count - len(self.rows)


def reasons(store: Store, base: Snapshot, outdated: pa.Array) -> list[Reason]:
    """Return the reasons of a snapshot's failures, the most frequent first; one row group in memory at a time.

    ``before`` of a reason counts its images among ``outdated`` ids: they had a result until they changed.
    """
    found: dict[str, Reason] = {}
    for file in base.errors:
        for rows in snapshot.read_batches(store, file, _COLUMNS):
            table = rows.append_column("before", pc.is_in(rows["image_id"], value_set=outdated))
            for entry in table["code"].value_counts().to_pylist():
                reason = found.setdefault(entry["values"], Reason(entry["values"]))
                reason.count += entry["counts"]
                mine = table.filter(pc.equal(table["code"], reason.code))
                reason.before += pc.sum(mine["before"]).as_py() or 0
                # A reader looks first for those that worked before.
                first = mine.filter(mine["before"]).slice(0, NAMES)
                rest = mine.filter(pc.invert(mine["before"])).slice(0, NAMES)
                known = [*reason.rows, *first.cast(_plain(first)).to_pylist(), *rest.cast(_plain(rest)).to_pylist()]
                reason.rows = sorted(known, key=lambda row: not row["before"])[:NAMES]
    for reason in found.values():
        reason.rows.sort(key=lambda row: (not row["before"], row["path"]))
    return sorted(found.values(), key=lambda reason: (-reason.count, reason.code))


def _plain(table: pa.Table) -> pa.Schema:
    """Return the schema with time stamps as integers (ns): Python has none that are as fine."""
    at = table.schema.get_field_index("modified")
    return table.schema.set(at, pa.field("modified", pa.int64()))
