"""Find the objects in every image: boxes with classes and scores, one row per image, in Parquet.

After a kill the same command continues; run again later, it computes only what is new or changed.

For example `cvjobs detect photos -o boxes --conf 0.5 --classes person,bicycle`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cvjobs.config.options import (
    LONGEST_SIDE,
    BatchOptions,
    Labels,
    ObjectOptions,
    SaveImages,
    ShorterSide,
    Weights,
    chosen,
)

if TYPE_CHECKING:
    from cvjobs.prediction.context import Resolved
    from cvjobs.prediction.dry_run import Forecast
    from cvjobs.prediction.placement import Placement
    from cvjobs.prediction.summary import Summary


@dataclass(frozen=True, kw_only=True)
class Config(ObjectOptions, BatchOptions):
    """The options of ``cvjobs detect``."""

    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="The model as family/name, or its name, as `cvjobs models --task detect` lists them; or hf/FOLDER, "
            "onnx/FILE.",
            rich_help_panel="Model, data and size",
        ),
    ] = "torchvision/fasterrcnn_resnet50_fpn_v2"
    weights: Weights = "pretrained"
    labels: Labels = None
    imgsz: ShorterSide = None
    nms: Annotated[
        Literal["per-class", "all-classes"],
        typer.Option(
            help="The boxes that --iou compares: those of one class, or of all classes.", rich_help_panel="Objects"
        ),
    ] = "per-class"
    tile: Annotated[
        int | None,
        typer.Option(
            min=32,
            max=LONGEST_SIDE,
            help="The side in pixels of the squares into which large images are cut.  [default: whole images]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    overlap: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="The share of a tile's side that it has in common with the next tile.",
            rich_help_panel="Model, data and size",
        ),
    ] = 0.2
    tta: Annotated[
        str,
        typer.Option(
            metavar="flip,SCALE,...",
            help="More looks at each image, mirrored or at other sizes, as in flip,0.8,1.2.  [default: none]",
            rich_help_panel="Model, data and size",
        ),
    ] = ""
    save_images: SaveImages = None


def call(config: Config) -> Summary | Forecast:
    """Detect and return what was done, or what would be (``dry_run``)."""
    from cvjobs.common.progress import Progress

    with Progress("detect"):  # which shows the imports, too
        from cvjobs.prediction import run

        if config.save_images is None:
            return run.run(config, DetectJob(config))
        from cvjobs.prediction.side_folder import beside
        from cvjobs.prediction.summary import Summary

        folders = beside.check(config.source, config.out, images=config.save_images)
        done = run.run(config, DetectJob(config))
        if not isinstance(done, Summary):
            return done
        return beside.complete(done, folders, config.storage_option, config.max_pixels)


class DetectJob:
    """The job: which model looks for what."""

    command = "detect"

    def __init__(self, config: Config) -> None:
        self._config = config

    def resolve(self, earlier: dict[str, Any], placement: Placement) -> Resolved:
        """Return the model's step and what identifies its results."""
        from cvjobs.networks import class_names
        from cvjobs.networks.detection.settings import Settings
        from cvjobs.prediction import model_choice
        from cvjobs.prediction.tasks.detect import DetectRequest

        c = self._config
        named = tuple(class_names.read(c.labels)) if c.labels else ()
        request = DetectRequest(model=c.model, weights=c.weights, labels=named, settings=chosen(Settings, c))
        return model_choice.resolve(
            request, c.precision, earlier, c.truncated, c.bits, placement=placement, accepted=c.accept_licence
        )
