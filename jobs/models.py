"""List the models that a task can use, by family.

For example `cvjobs models --task detect`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cvjobs.common import tabular
from cvjobs.common.formatting import counted
from cvjobs.common.tabular import Tabular
from cvjobs.config.options import Json

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs models``."""

    task: Annotated[
        Literal["embed", "classify", "detect", "segment", "train", "autoencoder"],
        typer.Option(help="The task that the models are for.", rich_help_panel="Model, data and size"),
    ] = "embed"
    json: Json = False


class Families(dict[str, list[str]], Tabular):
    """The names of models by family; as text one on each line, as they are typed after ``--model``."""

    def as_dict(self) -> dict[str, list[str]]:
        """Return the names as JSON types."""
        return dict(self)

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """Return the models, one row each: family, and model as it is typed after ``--model``."""
        rows = [{"family": family, "model": f"{family}/{name}"} for family, names in self.items() for name in names]
        return tabular.table(rows, columns)

    def __str__(self) -> str:
        lines = []
        for family, names in self.items():
            lines += [f"{family}: {counted(len(names), 'names')}", *(f"  {family}/{name}" for name in names)]
        return "\n".join(lines)


def call(config: Config) -> Families:
    """Return the names of the families that have models for the task."""
    from cvjobs.common.progress import tell
    from cvjobs.networks.registry import names

    found = names(config.task, tell)
    return Families({family: offered for family, offered in found.items() if offered})
