"""What earlier runs on an output did: one small record each, the newest last, in ``_cvjobs/history.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from cvjobs.dataset import schema, sealed
from cvjobs.storage.store import Store

LONGEST = 60


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run: its counts of the whole output, what it computed itself, and how it ended.

    ``status`` is finished, stopped or failed; ``new``, ``changed`` and ``gone`` count images of the source;
    ``numbers`` and ``by_class`` are what ``findings.Findings`` counts, ``blank`` is as in ``Summary``.
    """

    version: int
    started: float
    ended: float
    status: str
    listed: int
    ok: int
    failed: int
    skipped: int
    computed: int
    new: int
    changed: int
    gone: int
    seconds: float
    images_per_second: float
    failures: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    by_class: dict[str, float] = field(default_factory=dict)
    blank: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, record: dict[str, Any]) -> Record:
        """Return the run that a JSON record describes; raises TypeError where it describes none."""
        return cls(**{f.name: record[f.name] for f in fields(cls) if f.name in record})


def load(store: Store) -> list[Record]:
    """Return the earlier runs, oldest first; what cannot be understood is no reason to fail."""
    try:
        content = sealed.unpack(store.read(schema.HISTORY)) or {}
        return [Record.load(record) for record in content.get("runs", [])]
    except (FileNotFoundError, TypeError, AttributeError):
        return []


def keep(store: Store, runs: list[Record]) -> None:
    """Write the newest runs; the rest is forgotten."""
    content = sealed.pack({"runs": [asdict(run) for run in runs[-LONGEST:]]})
    store.write_bytes(schema.HISTORY, content)
