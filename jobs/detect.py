"""Find the objects in every image: boxes with classes and scores, one row per image, in Parquet.

Killed at any moment, the same command continues; run again, it computes only what is new or changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cvjobs.options import BatchOptions

if TYPE_CHECKING:
    from cvjobs.context import Resolved
    from cvjobs.forecast import Forecast
    from cvjobs.summary import Summary


@dataclass(frozen=True, kw_only=True)
class Config(BatchOptions):
    """The options of ``cvjobs detect``."""

    model: Annotated[str, typer.Option(help="family/name, or a name; `cvjobs models --task detect` lists them.")] = (
        "torchvision/fasterrcnn_resnet50_fpn_v2"
    )
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file of weights.")] = "pretrained"
    labels: Annotated[
        str | None, typer.Option(metavar="FILE", help="The names of the classes, one a line, for weights of your own.")
    ] = None
    conf: Annotated[
        float | None, typer.Option(min=0, max=1, help="Keep what scores more.  [default: the model's own]")
    ] = None
    iou: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of boxes that overlap more, keep the best.  [default: the model's own]"),
    ] = None
    max_det: Annotated[
        int | None, typer.Option(min=1, help="Keep so many an image (or tile), best first.  [default: the model's own]")
    ] = None
    classes: Annotated[str, typer.Option(metavar="NAME,...", help="Look for these only: names or ids.")] = ""
    imgsz: Annotated[
        int | None, typer.Option(min=32, help="Resize shorter sides to so many pixels.  [default: the model's own]")
    ] = None
    nms: Annotated[
        Literal["per-class", "all-classes"], typer.Option(help="Whether boxes of different classes may overlap.")
    ] = "per-class"
    tile: Annotated[
        int | None, typer.Option(min=32, help="Look at large images in squares of so many pixels a side.")
    ] = None
    overlap: Annotated[
        float, typer.Option(min=0, max=1, help="The share of a tile's side that it has in common with the next.")
    ] = 0.2
    tta: Annotated[
        str, typer.Option(metavar="flip,SCALE,...", help="Look again, mirrored or at other sizes, as in flip,0.8,1.2.")
    ] = ""


def run(config: Config) -> int:
    """Detect, print what was done and return the exit code."""
    import json

    summary = call(config)
    print(json.dumps(summary.as_dict()) if config.json else summary)
    return summary.exit_code


def call(config: Config) -> Summary | Forecast:
    """Detect and return what was done, or what would be (``dry_run``)."""
    from cvjobs import batch

    return batch.run(config, Detect(config))


class Detect:
    """The job: which model looks for what."""

    command = "detect"

    def __init__(self, config: Config) -> None:
        self._config = config

    def resolve(self, earlier: dict[str, Any]) -> Resolved:
        """Return the model's step and what identifies its results."""
        from cvjobs import labels, resolving
        from cvjobs.detection.rules import Settings
        from cvjobs.detection.steps import DetectRequest

        c = self._config
        named = tuple(labels.read(c.labels)) if c.labels else ()
        settings = Settings(
            conf=c.conf,
            iou=c.iou,
            max_det=c.max_det,
            imgsz=c.imgsz,
            nms=c.nms,
            classes=c.classes,
            tile=c.tile,
            overlap=c.overlap,
            tta=c.tta,
        )
        request = DetectRequest(model=c.model, weights=c.weights, labels=named, settings=settings)
        return resolving.resolve(request, c.precision, earlier)
