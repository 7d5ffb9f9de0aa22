"""List the models that a task can use, by family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs models``."""

    task: Annotated[
        Literal["embed", "classify", "detect", "segment", "train", "autoencoder"],
        typer.Option(help="What the models are for."),
    ] = "embed"
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object: names by family.")] = False


def run(config: Config) -> None:
    """Print the names as they are typed after ``--model``, one a line in a section for each family."""
    import json

    from cvjobs.models import names

    found = {family: offered for family, offered in names(config.task).items() if offered}
    if config.json:
        print(json.dumps(found))
        return
    for family, offered in found.items():
        print(f"{family}: {len(offered)} names")
        for name in offered:
            print(f"  {family}/{name}")
