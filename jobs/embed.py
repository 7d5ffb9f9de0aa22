"""Turn every image into a vector: one row per image, in Parquet.

After a kill the same command continues; run again later, it computes only what is new or changed.

For example `cvjobs embed photos -o vectors --model torchvision/mobilenet_v2`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvjobs.config.options import BatchOptions, Decode, Weights

if TYPE_CHECKING:
    from cvjobs.prediction.context import Resolved
    from cvjobs.prediction.dry_run import Forecast
    from cvjobs.prediction.placement import Placement
    from cvjobs.prediction.summary import Summary


@dataclass(frozen=True, kw_only=True)
class Config(BatchOptions):
    """The options of ``cvjobs embed``."""

    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="The model as family/name, or its name, as `cvjobs models` lists them; or thumbnail/N, hf/FOLDER, "
            "onnx/FILE.",
            rich_help_panel="Model, data and size",
        ),
    ] = "torchvision/mobilenet_v2"
    weights: Weights = "pretrained"
    layer: Annotated[
        str,
        typer.Option(
            metavar="LAYER",
            help="The module whose pooled output is the vector.  [default: the last before the classifier]",
            rich_help_panel="Model, data and size",
        ),
    ] = ""
    decode: Decode = "auto"


def call(config: Config) -> Summary | Forecast:
    """Embed and return what was done, or what would be (``dry_run``)."""
    from cvjobs.common.progress import Progress

    with Progress("embed"):  # which shows the imports, too
        from cvjobs.prediction import run

        return run.run(config, EmbedJob(config))


class EmbedJob:
    """The job: which model makes the vectors."""

    command = "embed"

    def __init__(self, config: Config) -> None:
        self._config = config

    def resolve(self, earlier: dict[str, Any], placement: Placement) -> Resolved:
        """Return the model's step and what identifies its vectors."""
        from cvjobs.prediction import model_choice
        from cvjobs.prediction.tasks.embed import EmbedRequest

        c = self._config
        request = EmbedRequest(model=c.model, weights=c.weights, layer=c.layer)
        return model_choice.resolve(
            request, c.precision, earlier, c.truncated, c.bits, c.decode, placement=placement, accepted=c.accept_licence
        )
