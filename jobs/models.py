"""List the models that a task can use, by family: parameters, input size and licence; or say all of one.

For example `cvjobs models --task detect`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cvjobs.common import tabular
from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import counted
from cvjobs.common.tabular import Tabular
from cvjobs.config.options import Json

if TYPE_CHECKING:
    import pyarrow as pa

    from cvjobs.networks.catalogue.catalogue import CatalogueEntry
    from cvjobs.networks.model_card import ModelCard

NAME = 44  # columns of a name, so that lines with a usual licence fit into 80; longer names move the rest


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs models``."""

    name: Annotated[
        str | None,
        typer.Argument(
            help="A model as it is typed after --model, to show what is known of it, or a family.  [default: all]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    task: Annotated[
        Literal["embed", "classify", "detect", "segment", "train", "autoencoder"],
        typer.Option(help="The task that the models are for.", rich_help_panel="Model, data and size"),
    ] = "embed"
    json: Json = False


class Families(dict[str, list[str]], Tabular):
    """The names of models by family; as text one on each line, as they are typed after ``--model``, with the rest."""

    def __init__(
        self, entries: Mapping[str, list[CatalogueEntry]], lacking: Mapping[str, str], tasks: Sequence[str]
    ) -> None:
        """``lacking`` is what installs a family that is not here; the models are for the first of ``tasks``."""
        super().__init__({family: [entry.model for entry in found] for family, found in entries.items()})
        self._entries, self._lacking = entries, lacking
        self._task, self._others = tasks[0], ", ".join(tasks[1:])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The models, one record each: names, ``tasks``, ``parameters`` (a number or None), ``size`` and licences."""
        return [entry.record() for found in self._entries.values() for entry in found]

    def as_dict(self) -> dict[str, Any]:
        """Return the names as JSON types, and in ``models`` the rows."""
        return {**self, "models": self.rows}

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """Return the models, one row each: ``family``, ``model`` as it is typed after ``--model``, and what it has."""
        return tabular.table(self.rows, columns)

    def __str__(self) -> str:
        lines = []
        for family, found in self._entries.items():
            missing = f"; to use them: {self._lacking[family]}" if self._lacking.get(family) else ""
            lines.append(f"{family}: {counted(len(found), 'names')}{missing}")
            width = min(max(len(entry.name) for entry in found), NAME)
            lines += [f"  {entry.name.ljust(width)}  {entry.figures}".rstrip() for entry in found]
        lines.append(f"These are for {self._task}; --task lists those for {self._others}.")
        return "\n".join(lines)


def call(config: Config) -> Families | ModelCard:
    """Return the models of the families that have any for the task, or what is known of one."""
    from cvjobs.common.progress import tell
    from cvjobs.networks import known_models

    if config.name is not None and config.name not in known_models.families():
        from cvjobs.networks import model_card

        return model_card.of(config.name, config.task)
    listed = known_models.listed(config.task, tell)
    found = {family: offered for family, offered in listed.items() if offered and config.name in (None, family)}
    if not found and config.name is not None:
        raise WrongUse(f"The family {config.name} has no models for {config.task}: choose another --task.")
    tasks = [config.task, *(task for task in known_models.TASKS if task != config.task)]
    return Families(found, {family: known_models.lacking(family) for family in found}, tasks)
