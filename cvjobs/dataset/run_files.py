"""The folder that a run leaves in its output: how it was asked for, and what it wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cvjobs.dataset import schema, sealed, typed
from cvjobs.dataset.keys import Want
from cvjobs.dataset.parts import Author, File, write_table
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.storage.store import Store

_DRAFT = ("resolved", "source", "root", "listing_rules", "skipped", "libraries")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How a run was asked for: who wrote, the facts of its fingerprint, and what its snapshot says beside them.

    ``options`` are the command's, ``listing`` is the file of what it wanted. In those of earlier versions ``draft`` is
    empty and ``listing`` None.
    """

    author: Author
    options: dict[str, Any]
    facts: dict[str, Any]
    draft: dict[str, Any]
    listing: File | None


def config_name(run: str) -> str:
    """Return the file name of how a run was asked for."""
    return f"{schema.RUNS}/{run}/config.json"


def listing_name(run: str) -> str:
    """Return the file name of what a run wanted."""
    return f"{schema.RUNS}/{run}/{schema.LISTING}"


def write(store: Store, author: Author, config: dict[str, Any], draft: Snapshot, want: Want) -> File:
    """Freeze how a run was asked for, and what it wants, whose file is returned."""
    keys = want.table.select([f.name for f in schema.KEYS])
    listing = write_table(store, listing_name(author.run), keys.schema, [keys])
    said = {name: getattr(draft, name) for name in _DRAFT}
    record = {**config, "facts": draft.facts, "author": vars(author), "draft": said, "listing": vars(listing)}
    store.write_bytes(config_name(author.run), sealed.pack(record))
    return listing


def there(store: Store, run: str) -> bool:
    """Return whether what a run left is there, and how it was asked for can be read."""
    return schema.LISTING in store.names(f"{schema.RUNS}/{run}") and read(store, run) is not None


def read(store: Store, run: str) -> RunConfig | None:
    """Return how a run was asked for, None where that is gone or damaged."""
    try:
        record = sealed.unpack(store.read(config_name(run))) or {}
        said = {
            "author": typed.made(Author, record["author"]),
            "options": record.get("options") or {},
            "facts": record["facts"],
            "draft": record.get("draft", {}),
            "listing": File.load(record["listing"]) if "listing" in record else None,
        }
        found = typed.made(RunConfig, said)
        typed.made(Snapshot, {"version": 0, **found.draft})
        return found
    except (FileNotFoundError, KeyError, TypeError, AttributeError):
        return None
