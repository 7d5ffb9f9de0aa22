"""Find what every pixel of an image shows, or the outline of every object: one row per image, in Parquet.

After a kill the same command continues; run again later, it computes only what is new or changed.

For example `cvjobs segment photos -o maps --masks-dir masks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cvjobs.config.options import BatchOptions, Labels, ObjectOptions, SaveImages, ShorterSide, Weights, chosen

if TYPE_CHECKING:
    from cvjobs.prediction.context import Resolved
    from cvjobs.prediction.dry_run import Forecast
    from cvjobs.prediction.placement import Placement
    from cvjobs.prediction.summary import Summary


@dataclass(frozen=True, kw_only=True)
class Config(ObjectOptions, BatchOptions):
    """The options of ``cvjobs segment``; those on objects are for models that outline objects."""

    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="The model as family/name, or its name, as `cvjobs models --task segment` lists them; or hf/FOLDER, "
            "onnx/FILE.",
            rich_help_panel="Model, data and size",
        ),
    ] = "torchvision/deeplabv3_mobilenet_v3_large"
    weights: Weights = "pretrained"
    labels: Labels = None
    imgsz: ShorterSide = None
    kind: Annotated[
        Literal["auto", "semantic", "instance"],
        typer.Option(
            help="The kind of results, of a model that has several: a class for every pixel (semantic), objects "
            "(instance), or what the model is for (auto).",
            rich_help_panel="Model, data and size",
        ),
    ] = "auto"
    masks_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="A folder for a PNG of masks for each image, kept like the results.  [default: none]",
            rich_help_panel="Results",
        ),
    ] = None
    save_images: SaveImages = None


def call(config: Config) -> Summary | Forecast:
    """Segment and return what was done, or what would be (``dry_run``)."""
    from cvjobs.common.progress import Progress

    with Progress("segment"):  # which shows the imports, too
        from cvjobs.prediction import run

        if config.masks_dir is None and config.save_images is None:
            return run.run(config, SegmentJob(config))
        from cvjobs.prediction.side_folder import beside
        from cvjobs.prediction.summary import Summary

        folders = beside.check(config.source, config.out, masks=config.masks_dir, images=config.save_images)
        done = run.run(config, SegmentJob(config))
        if not isinstance(done, Summary):
            return done
        return beside.complete(done, folders, config.storage_option, config.max_pixels)


class SegmentJob:
    """The job: which model segments."""

    command = "segment"

    def __init__(self, config: Config) -> None:
        self._config = config

    def resolve(self, earlier: dict[str, Any], placement: Placement) -> Resolved:
        """Return the model's step and what identifies its results."""
        from cvjobs.networks import class_names
        from cvjobs.networks.detection.settings import Settings
        from cvjobs.prediction import model_choice
        from cvjobs.prediction.tasks.segment import SegmentRequest

        c = self._config
        named = tuple(class_names.read(c.labels)) if c.labels else ()
        request = SegmentRequest(
            model=c.model,
            weights=c.weights,
            labels=named,
            settings=chosen(Settings, c),
            kind="" if c.kind == "auto" else c.kind,
        )
        return model_choice.resolve(
            request, c.precision, earlier, c.truncated, c.bits, placement=placement, accepted=c.accept_licence
        )
