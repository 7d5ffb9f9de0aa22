"""What a folder holds: which command's output it is, so that no command writes into that of another one."""

from __future__ import annotations

from cvjobs.common.errors import WrongUse
from cvjobs.dataset import schema
from cvjobs.storage.store import Store

RESULTS, INDEX, QUERY = "images' results", "an index", "the answers of a query"
RUN, NIGHTS = "a training run", "the nights of a pipeline"
OTHER = f"a {schema.REPORT} or {schema.SUMMARY} of something else"
RUN_CONFIG, NIGHT_RECORDS = "config.json", "nights"  # in the folder of a training run, and of a pipeline's nights
FORMATS = {RESULTS: "cvjobs", INDEX: "cvjobs index", QUERY: "cvjobs query"}  # in format.json
_MADE = {name: held for held, name in FORMATS.items()}
_RUN = {RUN_CONFIG, "checkpoints", "model.safetensors"}


def of(store: Store) -> set[str]:
    """Return whose output a folder is, finished or begun, from its marks alone; empty where it is no command's yet.

    More than one where an earlier version let a command write into the output of another.
    """
    found: set[str] = set()
    try:
        made = (schema.unpack(store.read(schema.FORMAT)) or {}).get("format")
        found.add(_MADE.get(str(made), RESULTS))
    except FileNotFoundError:
        pass
    names = set(store.names("."))
    if len(names & _RUN) > 1 or (RUN_CONFIG in names and _is_run(store)):
        found.add(RUN)
    if NIGHT_RECORDS in names and not found:
        found.add(NIGHTS)
    if not found and names & {schema.REPORT, schema.SUMMARY}:
        found.add(OTHER)
    return found


def _is_run(store: Store) -> bool:
    try:
        record = schema.unpack(store.read(RUN_CONFIG)) or {}
    except FileNotFoundError:
        return False
    return "identity" in record


def check(store: Store, own: str, remedy: str = "choose another -o") -> None:
    """Raise WrongUse for a folder that holds the output of another command than those that make ``own``."""
    found = of(store)
    if found and own not in found:
        raise WrongUse(f"{store.place} holds {min(found)}: {remedy}.")
