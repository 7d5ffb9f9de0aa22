"""Write results in the format of other programs, or the model of a training run as a file that they run.

Results go as coco, csv, jsonl or yolo, from the newest snapshot, a few images at a time. The best model of a run goes
as onnx, pt2 (torch.export) or safetensors, with its classes and preprocessing, checked against torch. A whole file is
left, or none.

For example `cvjobs export labels --format csv -o labels.csv`, or `cvjobs export run --format onnx -o model.onnx`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cvjobs.common.errors import WrongUse
from cvjobs.config.options import Json, StorageOptions

if TYPE_CHECKING:
    from cvjobs.dataset.export import Exported
    from cvjobs.training.run_export import ExportedModel


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs export``."""

    results: Annotated[
        str,
        typer.Argument(
            help="The results: the output folder of detect, segment, classify or embed; or the run: that of train."
        ),
    ]
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="FILE", help="The file to write, or the folder for --format yolo.")
    ]
    format: Annotated[
        str,
        typer.Option(metavar="FORMAT", help="The format: coco, csv, jsonl or yolo; of a run onnx, pt2 or safetensors."),
    ]
    category_ids: Annotated[
        Literal["coco", "contiguous"] | None,
        typer.Option(
            help="The numbers of the classes in --format coco: the model's own, or 1 to N.  [default: coco]",
            rich_help_panel="Results",
        ),
    ] = None
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a FILE of a run that is there already.", rich_help_panel="Results"),
    ] = False
    storage_option: StorageOptions = ()
    json: Json = False


def call(config: Config) -> Exported | ExportedModel:
    """Export and return what was written: of results ``Exported``, of a run ``ExportedModel``."""
    from cvjobs.common.progress import Progress
    from cvjobs.common.signals import stoppable
    from cvjobs.dataset import export
    from cvjobs.storage.storage_options import parse_options
    from cvjobs.storage.store import open_store
    from cvjobs.training import run_formats

    wanted, options = run_formats.settled(config.format), parse_options(config.storage_option)
    if config.category_ids and wanted != "coco":
        raise WrongUse(f"--category-ids is a matter of --format coco: leave it out with {wanted}.")
    if wanted in run_formats.RUN_FORMATS:
        return _of_run(config, wanted, options)
    if config.overwrite:
        raise WrongUse(f"--overwrite is about the model of a run: leave it out, for {wanted} replaces what is there.")
    run_formats.check_results(open_store(config.results, options=options), wanted)
    with Progress("export") as progress, stoppable():
        output = export.open_output(
            config.results,
            options,
            contiguous=config.category_ids == "contiguous",
            counting=progress.counting,
        )
        return export.write(output, wanted, config.out)


def _of_run(config: Config, wanted: str, options: Mapping[str, str]) -> ExportedModel:
    from cvjobs.common.progress import Progress
    from cvjobs.common.signals import stoppable

    with Progress("export") as progress, stoppable():
        progress.phase("export", "exporting the model")
        from cvjobs.training import run_export

        return run_export.write(config.results, wanted, config.out, options, overwrite=config.overwrite)
