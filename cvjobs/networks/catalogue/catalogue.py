"""Reading the catalogue: FAMILY.csv beside this file has a row for each model, and of which version they are.

The first line may be a comment, `# timm 1.0.31`: the library and its version that the rows were made from, by
`python docs/model_catalogue.py`. A file without one holds for any version.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cvjobs.common.fingerprint import installed
from cvjobs.networks.licences import Licence

FOLDER = Path(__file__).parent
COLUMNS = ("model", "tasks", "parameters", "size", "code", "weights")


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """A model: its name within the family, its tasks, what it has.

    ``parameters`` is None where it is unknown or any number; ``size`` is the height and width of its input in pixels
    as in ``224x224``, empty where it takes any. ``repository`` is where the family ``hf`` finds it, else empty.
    """

    family: str
    model: str
    tasks: tuple[str, ...]
    licence: Licence
    parameters: int | None = None
    size: str = ""
    repository: str = ""

    @property
    def name(self) -> str:
        """The name as it is typed after ``--model``."""
        return f"{self.family}/{self.model}"

    @property
    def stands(self) -> bool:
        """Whether the name stands for others, as in ``thumbnail/N``."""
        return self.model.isupper()

    @property
    def figures(self) -> str:
        """Parameters, size and licence in columns."""
        count = f"{self.parameters / 1e6:,.1f} M" if self.parameters else ""
        return f"{count:>9}  {self.size or 'any':>9}  {self.licence.short}"

    def record(self) -> dict[str, Any]:
        """Return the model as JSON types."""
        return {
            "family": self.family,
            "model": self.name,
            "tasks": list(self.tasks),
            "parameters": self.parameters,
            "size": self.size or None,
            "licence_code": self.licence.code,
            "licence_weights": self.licence.weights,
            "use": self.licence.use,
        }


@cache
def entries(family: str) -> tuple[CatalogueEntry, ...]:
    """Return the models of a family in the order of its file; none where it has no file."""
    file = FOLDER / f"{family}.csv"
    if not file.is_file():
        return ()
    lines = file.read_text(encoding="utf-8").splitlines()
    return tuple(_entry(family, row) for row in csv.DictReader(line for line in lines if not line.startswith("#")))


def _entry(family: str, row: dict[str, str]) -> CatalogueEntry:
    return CatalogueEntry(
        family=family,
        model=row["model"],
        tasks=tuple(row["tasks"].split()),
        parameters=int(row["parameters"]) if row["parameters"] else None,
        size=row["size"],
        licence=Licence(code=row["code"], weights=row["weights"]),
        repository=row.get("repository") or "",
    )


@cache
def is_current(family: str) -> bool:
    """Return whether the file of a family holds here: it has one, made from the version of the library that is here."""
    file = FOLDER / f"{family}.csv"
    if not file.is_file():
        return False
    with file.open(encoding="utf-8") as lines:
        first = next(lines, "")
    if not first.startswith("#"):
        return True
    library, version = first.lstrip("# ").split()
    return installed(library).partition("+")[0] == version


@cache
def _by_name(family: str) -> dict[str, CatalogueEntry]:
    return {entry.model: entry for entry in entries(family)}


def find(family: str, model: str) -> CatalogueEntry | None:
    """Return what the catalogue has of a model, of the name that stands for it where it has none of its own."""
    known = _by_name(family)
    return known.get(model) or next((entry for entry in known.values() if entry.stands), None)
