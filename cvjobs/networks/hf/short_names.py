"""Short names of well-known models of the Hugging Face hub, from the catalogue; torch is not needed."""

from __future__ import annotations

from cvjobs.networks.catalogue import catalogue
from cvjobs.networks.catalogue.catalogue import CatalogueEntry

_FAMILY = "hf"


def of_task(task: str) -> list[str]:
    """Return the short names of the models for a task, in the catalogue's order."""
    return [entry.model for entry in catalogue.entries(_FAMILY) if task in entry.tasks]


def hub(model: str) -> str:
    """Return the repository that a short name stands for, with the revision where one is named; empty for others."""
    name, at, revision = model.partition("@")
    found = catalogue.find(_FAMILY, name)
    return f"{found.repository}{at}{revision}" if found else ""


def entry(model: str) -> CatalogueEntry | None:
    """Return what the catalogue has of a model by its short name or its repository, without the revision."""
    name = model.partition("@")[0]
    return next((one for one in catalogue.entries(_FAMILY) if name in (one.model, one.repository)), None)
