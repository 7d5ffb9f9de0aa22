"""Compare predictions with the truth: AP and AR, mIoU, or top-1 and top-5; numbers, a table and a page.

PREDICTIONS is an output of `cvjobs detect`, `segment` or `classify`, or a COCO results file. TRUTH is COCO JSON, a
folder of VOC XML, YOLO txt or PNG masks, a folder with one subfolder for each class, or a CSV file of path and label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cvjobs.evaluation.result import Evaluation


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs eval``."""

    predictions: Annotated[str, typer.Argument(help="The -o folder of a job, or a COCO results file.")]
    truth: Annotated[str, typer.Argument(help="What is true of the same images.")]
    out: Annotated[
        str | None, typer.Option("-o", "--out", help="Where the files go.  [default: eval/ in PREDICTIONS]")
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The names of the truth's classes, one a line."),
    ] = None
    ignore: Annotated[
        int, typer.Option(min=0, max=65535, help="The class id of pixels that do not count, in a truth of masks.")
    ] = 255
    storage_option: Annotated[
        tuple[str, ...],
        typer.Option("--storage-option", metavar="KEY=VALUE", help="For s3://, gs:// and az://: endpoint=..., ..."),
    ] = ()
    json: Annotated[bool, typer.Option("--json", help="Print eval.json, and nothing else, on stdout.")] = False


def run(config: Config) -> int:
    """Evaluate, print the numbers and return the exit code."""
    import json

    found = call(config)
    print(json.dumps(found.as_dict()) if config.json else found)
    return 0


def call(config: Config) -> Evaluation:
    """Evaluate and return what was found; its ``metrics`` are by name."""
    from cvjobs import labels
    from cvjobs.evaluation.evaluate import evaluate
    from cvjobs.progress import Progress
    from cvjobs.remote import parse_options

    names = labels.read(config.labels) if config.labels else []
    with Progress("eval") as progress:
        return evaluate(
            config.predictions,
            config.truth,
            out=config.out,
            names=names,
            ignore=config.ignore,
            options=parse_options(config.storage_option),
            say=progress.say,
        )
