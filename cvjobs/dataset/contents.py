"""What a folder holds: which command's output it is, so that no command writes into that of another one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from cvjobs.common.errors import WrongUse
from cvjobs.dataset import schema, sealed
from cvjobs.storage.local_store import LocalStore
from cvjobs.storage.store import Store, above

RESULTS, INDEX, QUERY = "images' results", "an index", "the answers of a query"
RUN, NIGHTS, EVAL = "a training run", "the nights of a pipeline", "an evaluation"
CHECK = "a look at data"
SCHEDULE, MASKS = "schedules", "masks"
OTHER = f"a {schema.REPORT} or {schema.SUMMARY} of something else"
# In the folder of a training run, of a pipeline's nights, of an evaluation and of an index.
RUN_CONFIG, NIGHT_RECORDS, EVAL_NUMBERS, INDEX_RECORD = "config.json", "nights", "eval.json", "index.json"
CHECK_NUMBERS = "check.json"
ANSWERS = {"neighbours.parquet", "duplicates.parquet"}  # in the folder data of the answers of a query
FORMATS = {RESULTS: "cvjobs", INDEX: "cvjobs index", QUERY: "cvjobs query"}  # in format.json
_MADE = {name: held for held, name in FORMATS.items()}
QUERIES = "queries"  # in `_cvjobs` of a query, which embeds images there
_RUN = {RUN_CONFIG, "checkpoints", "model.safetensors"}
_NUMBER = re.compile(r"g\d{6,}-[0-9a-f]{8}")  # of an index's generation
# What is directly in the folder of some command's output, and of that command alone.
_ENTRIES = {
    *("_cvjobs", schema.DATA, schema.ERRORS, schema.REPORT, schema.SUMMARY, INDEX_RECORD),
    *(*_RUN, "cache", "tensorboard", "errors.parquet", "history.parquet", "leaks.parquet", "predictions.parquet"),
    *(CHECK_NUMBERS, "problems.parquet"),
    *("reconstructions.parquet", NIGHT_RECORDS, EVAL_NUMBERS, "eval.html", "confusion.parquet"),
}


def signature(store: Store) -> dict[str, Any]:
    """Return what ``sign`` wrote into a folder: ``format``, ``version``, ``source``; empty where it is not there."""
    try:
        return sealed.unpack(store.read(schema.FORMAT)) or {}
    except FileNotFoundError:
        return {}


def sign(store: Store, held: str, source: str, rules: Mapping[str, int] | None = None) -> None:
    """Write into a folder whose output it is, of which source and by which rules, unless it says so already."""
    if not signature(store):
        said = {"format": FORMATS[held], "version": 1, "source": source, **(rules or {})}
        store.write_bytes(schema.FORMAT, sealed.pack(said))


def of(store: Store) -> set[str]:
    """Return whose output a folder is, finished or begun, from its marks alone; empty where it is no command's yet.

    More than one where an earlier version let a command write into the output of another.
    """
    found: set[str] = set()
    names = set(store.names("."))
    if store.size(schema.FORMAT) is not None:
        made = signature(store).get("format")
        found.add(_MADE.get(str(made)) or _unsigned(store, names))
    elif INDEX_RECORD in names and store.names(schema.VERSIONS):
        found.add(INDEX)
    if len(names & _RUN) > 1 or (RUN_CONFIG in names and _is_run(store)):
        found.add(RUN)
    if EVAL_NUMBERS in names:
        found.add(EVAL)
    if CHECK_NUMBERS in names:
        found.add(CHECK)
    if NIGHT_RECORDS in names and not found:
        found.add(NIGHTS)
    if not found and names & {schema.REPORT, schema.SUMMARY}:
        found.add(OTHER)
    return found


def _unsigned(store: Store, names: set[str]) -> str:
    """Return what a folder holds whose signature is damaged."""
    if INDEX_RECORD in names:
        return INDEX
    return QUERY if ANSWERS & set(store.names(schema.DATA)) else RESULTS


def _is_run(store: Store) -> bool:
    try:
        record = sealed.unpack(store.read(RUN_CONFIG)) or {}
    except FileNotFoundError:
        return False
    return "identity" in record


def check_there(store: Store) -> None:
    """Raise WrongUse for a place where there is nothing at all."""
    if not store.names("."):
        raise WrongUse(f"There is nothing in {store.place}: name the folder that a command left.")


def check(store: Store, own: str, remedy: str = "choose another -o") -> None:
    """Raise WrongUse for a folder that holds the output of another command than those that make ``own``.

    Nor may it be a part of one. What has names of its own has room beside a page of something else.
    """
    found = of(store)
    if own in (EVAL, SCHEDULE, MASKS):
        found.discard(OTHER)
    if found and own not in found:
        raise WrongUse(f"{store.place} holds {min(found)}: {remedy}.")
    if own not in found:
        check_part(store, remedy)


def check_part(store: Store, remedy: str = "choose another -o", besides: str = OTHER) -> None:
    """Raise WrongUse for a place, a file's or a folder's, that is a part of some command's output.

    ``besides`` is a kind of output that has room for it.
    """
    way: list[str] = []  # from the folder to the place, the other way round
    for name, folder in above(store):
        way.append(name)
        if name in _ENTRIES or _NUMBER.fullmatch(name):
            found = of(folder) - {OTHER, besides}
            if way[-2:] == [QUERIES, "_cvjobs"]:
                found.discard(QUERY)
            if found:
                raise WrongUse(f"{store.place} is a part of {min(found)} in {folder.place}: {remedy}.")


def none(store: Store, what: str, made_by: str) -> WrongUse:
    """Return what to raise where a place holds none of what a command needs, or is not there."""
    absent = isinstance(store, LocalStore) and not os.path.lexists(store.place)
    start = f"There is no {store.place}" if absent else f"{store.place} holds no {what}"
    return WrongUse(f"{start}: name the -o folder of {made_by}.")
