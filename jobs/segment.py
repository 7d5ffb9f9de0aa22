"""Find what every pixel of an image shows, or the outline of every object: one row per image, in Parquet.

Killed at any moment, the same command continues; run again, it computes only what is new or changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvjobs.options import BatchOptions

if TYPE_CHECKING:
    from cvjobs.context import Resolved
    from cvjobs.forecast import Forecast
    from cvjobs.summary import Summary


@dataclass(frozen=True, kw_only=True)
class Config(BatchOptions):
    """The options of ``cvjobs segment``."""

    model: Annotated[str, typer.Option(help="family/name, or a name; `cvjobs models --task segment` lists them.")] = (
        "torchvision/deeplabv3_mobilenet_v3_large"
    )
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file of weights.")] = "pretrained"
    labels: Annotated[
        str | None, typer.Option(metavar="FILE", help="The names of the classes, one a line, for weights of your own.")
    ] = None
    imgsz: Annotated[
        int | None, typer.Option(min=32, help="Resize shorter sides to so many pixels.  [default: the model's own]")
    ] = None
    conf: Annotated[
        float | None, typer.Option(min=0, max=1, help="Objects: keep what scores more.  [default: the model's own]")
    ] = None
    iou: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Objects: of boxes that overlap more, keep the best.  [default: the model's own]"
        ),
    ] = None
    max_det: Annotated[
        int | None, typer.Option(min=1, help="Objects: keep so many an image, best first.  [default: the model's own]")
    ] = None
    classes: Annotated[str, typer.Option(metavar="NAME,...", help="Objects: look for these only, names or ids.")] = ""
    masks_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Also keep a folder of masks, a PNG an image, as the results are.")
    ] = None


def run(config: Config) -> int:
    """Segment, print what was done and return the exit code."""
    import json

    summary = call(config)
    print(json.dumps(summary.as_dict()) if config.json else summary)
    return summary.exit_code


def call(config: Config) -> Summary | Forecast:
    """Segment and return what was done, or what would be (``dry_run``)."""
    from cvjobs import batch

    if config.masks_dir is None:
        return batch.run(config, Segment(config))
    from cvjobs.segmentation import folder
    from cvjobs.summary import Summary

    masks = folder.check(config.masks_dir, config.source, config.out)
    done = batch.run(config, Segment(config))
    return folder.complete(done, masks, config.storage_option) if isinstance(done, Summary) else done


class Segment:
    """The job: which model segments."""

    command = "segment"

    def __init__(self, config: Config) -> None:
        self._config = config

    def resolve(self, earlier: dict[str, Any]) -> Resolved:
        """Return the model's step and what identifies its results."""
        from cvjobs import labels, resolving
        from cvjobs.detection.rules import Settings
        from cvjobs.segmentation.choice import SegmentRequest

        c = self._config
        named = tuple(labels.read(c.labels)) if c.labels else ()
        settings = Settings(conf=c.conf, iou=c.iou, max_det=c.max_det, imgsz=c.imgsz, classes=c.classes)
        request = SegmentRequest(model=c.model, weights=c.weights, labels=named, settings=settings)
        return resolving.resolve(request, c.precision, earlier)
