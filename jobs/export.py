"""Write the results of an output in the format of other programs: coco, csv, jsonl or yolo.

It reads the newest snapshot a few images at a time, and leaves a whole file or none.

For example `cvjobs export labels --format csv -o labels.csv`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cvjobs.common.errors import WrongUse
from cvjobs.config.options import Json, StorageOptions

if TYPE_CHECKING:
    from cvjobs.dataset.export import Exported


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs export``."""

    results: Annotated[
        str, typer.Argument(help="The results: the output folder of detect, segment, classify or embed.")
    ]
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="FILE", help="The file to write, or the folder for --format yolo.")
    ]
    format: Annotated[str, typer.Option(metavar="FORMAT", help="The format: coco, csv, jsonl or yolo.")]
    category_ids: Annotated[
        Literal["coco", "contiguous"] | None,
        typer.Option(
            help="The numbers of the classes in --format coco: the model's own, or 1 to N.  [default: coco]",
            rich_help_panel="Results",
        ),
    ] = None
    storage_option: StorageOptions = ()
    json: Json = False


def call(config: Config) -> Exported:
    """Export and return what was written."""
    from cvjobs.common.progress import Progress
    from cvjobs.common.signals import stoppable
    from cvjobs.dataset import export
    from cvjobs.storage.storage_options import parse_options

    wanted = export.settled(config.format)
    if config.category_ids and wanted != "coco":
        raise WrongUse(f"--category-ids is a matter of --format coco: leave it out with {wanted}.")
    with Progress("export") as progress, stoppable():
        output = export.open_output(
            config.results,
            parse_options(config.storage_option),
            contiguous=config.category_ids == "contiguous",
            counting=progress.counting,
        )
        return export.write(output, wanted, config.out)
