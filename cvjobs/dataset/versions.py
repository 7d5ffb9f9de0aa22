"""Numbered records of an output's states: published by put-if-absent of the next number, the newest one counts.

Each has a copy, which is written once the state is published and counts where the record itself is damaged. Outputs of
earlier versions get theirs by the next run.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

from cvjobs.common.errors import JobFailed
from cvjobs.dataset import schema, sealed
from cvjobs.storage.store import Store


class DamagedVersion(JobFailed):
    """The newest state cannot be read, and neither can its copy."""


@dataclass(frozen=True, kw_only=True)
class VersionRecord:
    """A state that can be read; ``damage`` says which of its two files is not what was written, empty where neither."""

    number: int
    record: dict[str, Any]
    damage: str = ""


def name_of(number: int) -> str:
    """Return the file name of a state."""
    return f"{schema.VERSIONS}/v{number:08d}.json"


def copy_of(number: int) -> str:
    """Return the file name of a state's copy."""
    return f"{schema.COPIES}/v{number:08d}.json"


def numbers(store: Store) -> list[int]:
    """Return the numbers that are taken, in order."""
    names = [*store.names(schema.VERSIONS), *store.names(schema.COPIES)]
    found = {name[1:-5] for name in names if name.startswith("v") and name.endswith(".json")}
    return sorted(int(n) for n in found if n.isascii() and n.isdigit())


def head(store: Store) -> int:
    """Return the number of the newest state, readable or not; 0 for a new output."""
    return max(numbers(store), default=0)


def following(store: Store) -> int:
    """Return the number that the next state gets."""
    return head(store) + 1


def newest(store: Store) -> VersionRecord | None:
    """Return the newest state, None for a new output; that a damaged one is made up for is said on stderr.

    Raises:
        DamagedVersion: neither the newest state nor its copy can be read. Where the file system has no hard links, the
            first state may be one that a kill cut short before it was published.
    """
    while True:
        there = numbers(store)
        torn: list[int] = []
        superseded = False
        for number in reversed(there):
            found = read(store, number)
            if isinstance(found, VersionRecord):
                if torn:
                    say(f"{store.place}/{name_of(torn[0])} is cut short: state {number} counts")
                elif found.damage:
                    say(f"{store.place}/{found.damage}")
                return found
            if found is None:
                superseded = True  # while we looked: there is a newer one
                break
            if not found.cut_short:
                raise damaged(store, number)
            torn.append(number)
        if not superseded:
            if torn:
                raise damaged(store, torn[0])
            return None


@dataclass(frozen=True)
class UnreadableVersion:
    """A state that cannot be read; ``cut_short`` where a kill may have left it so, before it was published."""

    cut_short: bool


def read(store: Store, number: int) -> VersionRecord | UnreadableVersion | None:
    """Return the state of a number from its file or its copy; None where there is neither."""
    name = name_of(number)
    content = _content(store, name)
    record = _unpacked(content, number)
    if content is not None and record is not None and sealed.is_sealed(content):
        return VersionRecord(number=number, record=record)
    copied = _content(store, copy_of(number))
    copy = _unpacked(copied, number)
    if copy is not None and copy != record:
        return VersionRecord(number=number, record=copy, damage=f"{name} is {_how(content)}: its copy counts")
    if record is not None:
        damage = f"{copy_of(number)} is damaged" if copied is not None and copy is None else ""
        return VersionRecord(number=number, record=record, damage=damage)
    if content is None and copied is None:
        return None
    return UnreadableVersion(cut_short=content is not None and copied is None and not content.endswith(b"}\n"))


def damaged(store: Store, number: int) -> DamagedVersion:
    """Return the error of a state that cannot be read."""
    return DamagedVersion(
        f"{store.place}/{name_of(number)} is damaged, and no copy of it is whole: "
        f"`cvjobs verify {store.place} --repair` brings back what can be brought back."
    )


def publish(store: Store, number: int, record: dict[str, Any]) -> bool:
    """Publish a state; False where another run was first, and then nothing may be deleted."""
    content = sealed.pack(record)
    # Old states are deleted, so a run that slept may create a number that was used up: higher ones tell.
    if not store.create(name_of(number), content) or head(store) != number:
        return False
    store.write_bytes(copy_of(number), content)
    return True


def damage(store: Store, number: int) -> list[str]:
    """Return the names of a state's two files that are gone or are not what was written."""
    content, copied = (_content(store, name) for name in (name_of(number), copy_of(number)))
    record, copy = _unpacked(content, number), _unpacked(copied, number)
    if content is not None and copy not in (None, record) and not sealed.is_sealed(content):
        return [name_of(number)]  # as in ``read``: the copy counts
    bad = [name_of(number)] if record is None else []
    return bad if copy is not None and record in (None, copy) else [*bad, copy_of(number)]


def heal(store: Store, number: int) -> None:
    """Write what is damaged of a state's two files anew from the other one, which can be read."""
    bad = damage(store, number) if number else []
    state = read(store, number) if bad else None
    if isinstance(state, VersionRecord):
        for name in bad:
            store.write_bytes(name, sealed.pack(state.record))


def delete(store: Store, *old: int) -> None:
    """Delete states: first the copies, for a copy without its state counts."""
    store.delete(*(copy_of(number) for number in old))
    store.delete(*(name_of(number) for number in old))


def how(store: Store, name: str) -> str:
    """Return how a file is that cannot be used: gone or damaged."""
    return "gone" if store.size(name) is None else "damaged"


def _content(store: Store, name: str) -> bytes | None:
    try:
        return store.read(name)
    except FileNotFoundError:
        return None


def _unpacked(content: bytes | None, number: int) -> dict[str, Any] | None:
    """Return the record of a state; None where it is damaged, or that of another number, which was put in its place."""
    record = sealed.unpack(content) if content is not None else None
    return record if record and record.get("number", record.get("version", number)) == number else None


def _how(content: bytes | None) -> str:
    return "gone" if content is None else "damaged"


@cache
def say(damage: str) -> None:
    """Say once what is made up for."""
    print(f"cvjobs: {damage}.", file=sys.stderr, flush=True)
