"""Short names of well-known models of the Hugging Face hub, from the catalogue; torch is not needed."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

from cvjobs.networks import catalogue


class ShortName(NamedTuple):
    """A model under its short ``name``: its tasks, the identifiers of its licences, and its ``repository``."""

    name: str
    tasks: tuple[str, ...]
    code: str
    weights: str
    repository: str


@cache
def known() -> dict[str, ShortName]:
    """Return the models of the catalogue by their short names."""
    file = Path(catalogue.__path__[0]) / "hf.csv"
    rows = csv.DictReader(line for line in file.read_text(encoding="utf-8").splitlines() if line[:1] != "#")
    return {
        row["model"]: ShortName(
            row["model"], tuple(row["tasks"].split()), row["code"], row["weights"], row["repository"]
        )
        for row in rows
    }


def of_task(task: str) -> list[str]:
    """Return the short names of the models for a task, in the catalogue's order."""
    return [model.name for model in known().values() if task in model.tasks]


def hub(model: str) -> str:
    """Return the repository that a short name stands for, with the revision where one is named; empty for others."""
    name, at, revision = model.partition("@")
    found = known().get(name)
    return f"{found.repository}{at}{revision}" if found else ""
