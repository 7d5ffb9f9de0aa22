"""Checking the records of a pipeline's nights, as they were written."""

from __future__ import annotations

from cvjobs.dataset import contents, lock
from cvjobs.dataset.folder_report import FolderReport
from cvjobs.operations.nightly import record
from cvjobs.storage.store import TEMPORARY, Store


def verify(store: Store) -> FolderReport:
    """Check the record of every night that is kept; what a step said and its page are for people alone."""
    numbers = record.numbers(store)
    whole = {night.number for night in record.load(store)}
    problems = []
    for number in numbers:
        begun = [n for n in store.names(f"{record.FOLDER}/{number:04d}") if not n.startswith(TEMPORARY)]
        if number not in whole and begun:  # else a kill came before its record was written
            then = "the next night begins anew, and its steps do what is left" if number == numbers[-1] else ""
            remedy = f"delete {record.FOLDER}/{number:04d}" + (f"; {then}" if then else "")
            problems.append(f"{record.file_of(number)} is gone or damaged: {remedy}")
    holder = lock.holder(store)
    return FolderReport(
        place=store.place,
        holds=contents.NIGHTS,
        checked={"nights": len(numbers)},
        problems=tuple(problems),
        notes=(f"{holder} is writing to it now",) if holder else (),
    )
