"""Look at data before anything is spent on them: every image decoded, classes counted, what is wrong, as a page.

DATA is what `cvjobs train` takes: class folders, a list with labels, or a folder with COCO's, VOC's or YOLO's boxes or
with masks. With --truth it is the images of a truth that `cvjobs eval` reads. Exit code 0: nothing is to be corrected;
1: something is.

For example `cvjobs check photos -o look`, `cvjobs check images --truth annotations.json -o look`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cvjobs.config.options import LONGEST_SIDE, Bits, Confine, Exclude, Json, MaxPixels, StorageOptions, Truncated

if TYPE_CHECKING:
    from cvjobs.common.progress import Progress
    from cvjobs.inspection.data_check import DataCheck


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs check``."""

    data: Annotated[
        str,
        typer.Argument(
            help="The images: a folder of class folders or with boxes or masks, or a list; with --truth any of both."
        ),
    ]
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="FOLDER", help="The folder for the page, the numbers and the table.")
    ]
    truth: Annotated[
        tuple[str, ...],
        typer.Option(
            "--truth",
            metavar="[SPLIT=]TRUTH",
            help="A truth of the images, as `cvjobs eval` takes it, perhaps all of one split (train, val or test); "
            "repeat the option for more.  [default: the boxes, masks or labels that DATA has]",
            rich_help_panel="Model, data and size",
        ),
    ] = ()
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A file with the names of classes that are numbers, one on each line.  [default: none]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    vectors: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="The output of `cvjobs embed` on these images, or an index of it, which tells what is nearly the same "
            "in two splits, and which labels most neighbours do not have.  [default: none]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    val: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=0.9,
            help="The share of the images to validate with, as `cvjobs train` chooses them, where the data have no val "
            "split.",
            rich_help_panel="Model, data and size",
        ),
    ] = 0.2
    img_size: Annotated[
        int,
        typer.Option(
            min=32,
            max=LONGEST_SIDE,
            help="The shorter side in pixels of a model's input, at which the sizes of objects are told.",
            rich_help_panel="Model, data and size",
        ),
    ] = 640
    max_pixels: MaxPixels = 80_000_000
    bits: Bits = None
    truncated: Truncated = "fail"
    exclude: Exclude = ()
    storage_option: StorageOptions = ()
    confine: Confine = False
    json: Json = False


def call(config: Config) -> DataCheck:
    """Look at the data and return what was found; its rows are the problems."""
    from cvjobs.common.progress import Progress

    with Progress("check") as progress:  # which shows the imports, too
        return _check(config, progress)


def _check(config: Config, progress: Progress) -> DataCheck:
    from contextlib import closing

    from cvjobs.common.signals import stoppable
    from cvjobs.images.decode_children import DecoderServer
    from cvjobs.storage.storage_options import parse_options

    with stoppable(), closing(DecoderServer()) as decoder_server:
        decoder_server.start()  # takes seconds, as do the imports
        from cvjobs.inspection import run
        from cvjobs.inspection.appraisal import CheckRequest
        from cvjobs.networks import class_names

        request = CheckRequest(
            data=config.data,
            out=config.out,
            truths=config.truth,
            names=class_names.read(config.labels) if config.labels else [],
            vectors=config.vectors,
            val=config.val,
            input_side=config.img_size,
            max_pixels=config.max_pixels,
            bits=config.bits,
            truncated=config.truncated,
            exclude=config.exclude,
            confine=config.confine,
            storage=parse_options(config.storage_option),
        )
        return run.check(request, decoder_server, progress)
