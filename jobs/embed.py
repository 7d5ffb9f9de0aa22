"""Turn every image into a vector: one row per image, in Parquet.

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
    """The options of ``cvjobs embed``."""

    model: Annotated[str, typer.Option(help="family/name, a name, or thumbnail/N; `cvjobs models` lists them.")] = (
        "torchvision/mobilenet_v2"
    )
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file of weights.")] = "pretrained"
    layer: Annotated[str, typer.Option(help="The module whose pooled output is the vector.  [default: last]")] = ""


def run(config: Config) -> int:
    """Embed, print what was done and return the exit code."""
    import json

    summary = call(config)
    print(json.dumps(summary.as_dict()) if config.json else summary)
    return summary.exit_code


def call(config: Config) -> Summary | Forecast:
    """Embed and return what was done, or what would be (``dry_run``)."""
    from cvjobs import batch

    return batch.run(config, Embed(config))


class Embed:
    """The job: which model makes the vectors."""

    command = "embed"

    def __init__(self, config: Config) -> None:
        self._config = config

    def resolve(self, earlier: dict[str, Any]) -> Resolved:
        """Return the model's step and what identifies its vectors."""
        from cvjobs import resolving
        from cvjobs.embedding import EmbedRequest

        c = self._config
        return resolving.resolve(EmbedRequest(model=c.model, weights=c.weights, layer=c.layer), c.precision, earlier)
