"""Checking a training run: every record, table and model of it, and every checkpoint, as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cvjobs.common.errors import CvjobsError
from cvjobs.dataset import contents, lock, sealed, sealed_table
from cvjobs.dataset.folder_report import FolderReport
from cvjobs.dataset.sealed_table import UnreadableTable
from cvjobs.networks import weights as files
from cvjobs.networks.families import training_run
from cvjobs.storage.local_store import LocalStore
from cvjobs.storage.store import Store
from cvjobs.training import artifacts
from cvjobs.training.data import decoded
from cvjobs.training.data.own_cache import CACHE
from cvjobs.training.identity import CONFIG
from cvjobs.training.loop import checkpoints
from cvjobs.training.plan import ERRORS, HISTORY, LEAKS, MODEL
from cvjobs.training.training_summary import FILE as SUMMARY
from cvjobs.training.training_summary import TrainingSummary


def verify(store: Store) -> FolderReport:
    """Check all of a run but its page."""
    ended = TrainingSummary.read(store) is not None
    problems, notes = _records(store, ended)
    tables = {name for name in store.names(".") if name.endswith(".parquet")}
    wanted = {HISTORY, ERRORS, LEAKS} if ended else set()
    for name in sorted(tables | wanted):
        try:
            sealed_table.check(store, name)
        except UnreadableTable as error:
            remedy = artifacts.remedy(error) if ended else "the same command writes it anew"
            problems.append(f"{name} {error.words}: {remedy}")
    model = _model(store)
    states = checkpoints.examined(store)
    chunks = _chunks(store)
    more, said = _states(states, ended)
    notes += said
    if holder := lock.holder(store):
        notes.append(f"{holder} is writing to it now")
    return FolderReport(
        place=store.place,
        holds=contents.RUN,
        checked={
            "records": sum(store.size(name) is not None for name in (CONFIG, SUMMARY)),
            "tables": len(tables),
            "models": int(store.size(MODEL) is not None),
            "checkpoints": len(states),
            "chunks of images": len(chunks),
        },
        problems=(
            *problems,
            *model,
            *more,
            *(f"{CACHE}/{name} is damaged ({why}): delete it" for name, why in chunks.items() if why),
        ),
        notes=tuple(notes),
    )


def _records(store: Store, ended: bool) -> tuple[list[str], list[str]]:
    """Return what is wrong with the run's JSON files, and what else is to be said of them."""
    problems, notes = [], []
    config = _record(store, CONFIG)
    if config is None or not isinstance(config.get("identity"), dict):
        remedy = "delete it, and a command of the same settings continues from the checkpoints"
        problems.append(f"{CONFIG} is damaged: {remedy}" if store.size(CONFIG) is not None else f"{CONFIG} is gone")
    if not ended and store.size(SUMMARY) is not None:
        problems.append(f"{SUMMARY} is damaged: the same command writes it anew")
    elif not ended:
        notes.append("the training has not ended: the same command continues")
    return problems, notes


def _record(store: Store, name: str) -> dict[str, Any] | None:
    try:
        return sealed.unpack(store.read(name))
    except FileNotFoundError:
        return None


def _model(store: Store) -> list[str]:
    if not isinstance(store, LocalStore):
        why = artifacts.model_fault(store)
        again = files.remade(checkpoints.shelf(store).begun())
        return [f"{MODEL} is {why}: {again}"] if why and store.size(HISTORY) is not None else []
    file = Path(store.place) / MODEL
    if not file.exists():
        begun = any(store.size(name) is not None for name in (SUMMARY, HISTORY))  # an epoch has ended
        return [f"{MODEL} is gone: bring it back from a backup, or {files.again(file)}"] if begun else []
    try:
        weights = files.from_file(file)
        training_run.about(file)
        files.state(weights)
    except CvjobsError as error:
        return [str(error).removesuffix(".")]
    return []


def _states(states: dict[str, str], ended: bool) -> tuple[list[str], list[str]]:
    """Return what is wrong with the checkpoints, and from which one a training would continue."""
    whole = [name for name, why in states.items() if not why]
    then = f"training would continue from {whole[0]}" if whole else "none is whole: bring one back, or --overwrite"
    problems = [
        f"{checkpoints.FOLDER}/{name} is damaged ({why}): delete it; {then}" for name, why in states.items() if why
    ]
    note = [f"the same command continues from checkpoint {whole[0]}"] if whole and not ended else []
    return problems, note


def _chunks(store: Store) -> dict[str, str]:
    """Return what is wrong with each chunk of decoded images that the run still has; empty where nothing is."""
    if not isinstance(store, LocalStore):
        return {}
    names = [name for name in store.names(CACHE) if "." not in name]
    return {name: decoded.examined(Path(store.place) / CACHE / name) for name in names}
