"""What a folder holds: which command's output it is, so that no command writes into that of another one."""

from __future__ import annotations

from typing import Any

from cvjobs.common.errors import WrongUse
from cvjobs.dataset import schema, sealed
from cvjobs.storage.store import Store

RESULTS, INDEX, QUERY = "images' results", "an index", "the answers of a query"
RUN, NIGHTS = "a training run", "the nights of a pipeline"
OTHER = f"a {schema.REPORT} or {schema.SUMMARY} of something else"
# In the folder of a training run, of a pipeline's nights and of an index.
RUN_CONFIG, NIGHT_RECORDS, INDEX_RECORD = "config.json", "nights", "index.json"
ANSWERS = {"neighbours.parquet", "duplicates.parquet"}  # in the folder data of the answers of a query
FORMATS = {RESULTS: "cvjobs", INDEX: "cvjobs index", QUERY: "cvjobs query"}  # in format.json
_MADE = {name: held for held, name in FORMATS.items()}
_RUN = {RUN_CONFIG, "checkpoints", "model.safetensors"}


def signature(store: Store) -> dict[str, Any]:
    """Return what ``sign`` wrote into a folder: ``format``, ``version``, ``source``; empty where it is not there."""
    try:
        return sealed.unpack(store.read(schema.FORMAT)) or {}
    except FileNotFoundError:
        return {}


def sign(store: Store, held: str, source: str) -> None:
    """Write into a folder whose output it is, and of which source, unless it says so already."""
    if not signature(store):
        store.write_bytes(schema.FORMAT, sealed.pack({"format": FORMATS[held], "version": 1, "source": source}))


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


def check(store: Store, own: str, remedy: str = "choose another -o") -> None:
    """Raise WrongUse for a folder that holds the output of another command than those that make ``own``."""
    found = of(store)
    if found and own not in found:
        raise WrongUse(f"{store.place} holds {min(found)}: {remedy}.")
