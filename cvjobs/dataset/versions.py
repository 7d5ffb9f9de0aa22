"""Numbered records of an output's states: published by put-if-absent of the next number, the newest one counts."""

from __future__ import annotations

from typing import Any

from cvjobs.dataset import schema
from cvjobs.storage.store import Store


def name_of(number: int) -> str:
    """Return the file name of a state."""
    return f"{schema.VERSIONS}/v{number:08d}.json"


def numbers(store: Store) -> list[int]:
    """Return the numbers that are taken, in order."""
    names = (name[1:-5] for name in store.names(schema.VERSIONS) if name.startswith("v") and name.endswith(".json"))
    return sorted(int(n) for n in names if n.isdigit())


def following(store: Store) -> int:
    """Return the number that the next state gets."""
    return max(numbers(store), default=0) + 1


def newest(store: Store) -> tuple[str, dict[str, Any]] | None:
    """Return the file name and record of the newest state, None for a new output; a damaged record is empty."""
    while True:
        superseded = False
        for number in reversed(numbers(store)):
            try:
                content = store.read(name_of(number))
            except FileNotFoundError:
                superseded = True  # while we looked: there is a newer one
                break
            if content.endswith(b"}\n"):
                return name_of(number), schema.unpack(content) or {}
            # A kill cut it short, which only happens without hard links: it was never published.
        if not superseded:
            return None


def publish(store: Store, number: int, record: dict[str, Any]) -> bool:
    """Publish a state; False where another run was first, and then nothing may be deleted."""
    created = store.create(name_of(number), schema.pack(record))
    # Old states are deleted, so a run that slept may create a number that was used up: higher ones tell.
    return created and max(numbers(store)) == number
