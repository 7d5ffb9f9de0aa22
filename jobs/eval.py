"""Compare predictions with the truth: AP and AR, mIoU, or top-1 and top-5, as JSON, a table and a page.

PREDICTIONS is an output of `cvjobs detect`, `segment` or `classify`, its export, or what another tool wrote: COCO
results, a table of labels or boxes, a folder of YOLO txt with scores or of PNG masks. TRUTH is COCO JSON, a folder of
VOC XML, YOLO txt or PNG masks, OpenImages' CSV, a folder with one subfolder for each class, or a table of labels.

For example `cvjobs eval boxes annotations.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cvjobs.config.options import Json, StorageOptions

if TYPE_CHECKING:
    from cvjobs.evaluation.result import Evaluation


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs eval``."""

    predictions: Annotated[
        str, typer.Argument(help="The predictions: the -o folder of a job, or a file or folder of another tool.")
    ]
    truth: Annotated[str, typer.Argument(help="The truth about the same images: a file or a folder.")]
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="The folder for the numbers and the page.  [default: eval/ in PREDICTIONS]",
            rich_help_panel="Results",
        ),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A file with the names of classes that are numbers, one on each line.  [default: none]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    ignore: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="The class id of pixels that do not count, in a truth of masks.  [default: 255]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    void: Annotated[
        str | None,
        typer.Option(
            metavar="none|N",
            help="The same, or none where all pixels count; asked for where 255 may be a class.  [default: --ignore]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    storage_option: StorageOptions = ()
    json: Json = False


def call(config: Config) -> Evaluation:
    """Evaluate and return what was found; its ``metrics`` are by name."""
    from cvjobs.common.progress import Progress
    from cvjobs.evaluation.run import evaluate
    from cvjobs.evaluation.void import chosen
    from cvjobs.networks import class_names
    from cvjobs.storage.storage_options import parse_options

    names = class_names.read(config.labels) if config.labels else []
    with Progress("eval") as progress:
        return evaluate(
            config.predictions,
            config.truth,
            out=config.out,
            names=names,
            void=chosen(config.ignore, config.void),
            options=parse_options(config.storage_option),
            say=progress.phase,
        )
