"""Name what every image shows: its likeliest classes and their scores, one row per image, in Parquet.

After a kill the same command continues; run again later, it computes only what is new or changed.

For example `cvjobs classify photos -o labels --model torchvision/mobilenet_v2`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvjobs.config.options import BatchOptions, Decode, Labels, Weights

if TYPE_CHECKING:
    from cvjobs.prediction.context import Resolved
    from cvjobs.prediction.dry_run import Forecast
    from cvjobs.prediction.placement import Placement
    from cvjobs.prediction.summary import Summary


@dataclass(frozen=True, kw_only=True)
class Config(BatchOptions):
    """The options of ``cvjobs classify``."""

    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="The model as family/name, or its name, as `cvjobs models --task classify` lists them; or hf/FOLDER, "
            "onnx/FILE.",
            rich_help_panel="Model, data and size",
        ),
    ] = "torchvision/mobilenet_v2"
    weights: Weights = "pretrained"
    labels: Labels = None
    top: Annotated[
        int,
        typer.Option(
            min=1, help="The number of classes to keep for each image, best first.", rich_help_panel="Results"
        ),
    ] = 5
    decode: Decode = "auto"


def call(config: Config) -> Summary | Forecast:
    """Classify and return what was done, or what would be (``dry_run``)."""
    from cvjobs.common.progress import Progress

    with Progress("classify"):  # which shows the imports, too
        from cvjobs.prediction import run

        return run.run(config, ClassifyJob(config))


class ClassifyJob:
    """The job: which model names the classes."""

    command = "classify"

    def __init__(self, config: Config) -> None:
        self._config = config

    def resolve(self, earlier: dict[str, Any], placement: Placement) -> Resolved:
        """Return the model's step and what identifies its results."""
        from cvjobs.networks import class_names
        from cvjobs.prediction import model_choice
        from cvjobs.prediction.tasks.classify import ClassifyRequest

        c = self._config
        named = tuple(class_names.read(c.labels)) if c.labels else ()
        request = ClassifyRequest(model=c.model, weights=c.weights, labels=named, top=c.top)
        return model_choice.resolve(
            request, c.precision, earlier, c.truncated, c.bits, c.decode, placement=placement, accepted=c.accept_licence
        )
