"""Name what every image shows: its likeliest classes and their scores, one row per image, in Parquet.

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
    """The options of ``cvjobs classify``."""

    model: Annotated[str, typer.Option(help="family/name, or a name; `cvjobs models --task classify` lists them.")] = (
        "torchvision/mobilenet_v2"
    )
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file of weights.")] = "pretrained"
    labels: Annotated[
        str | None, typer.Option(metavar="FILE", help="The names of the classes, one a line, for weights of your own.")
    ] = None
    top: Annotated[int, typer.Option(min=1, help="Keep so many classes of an image, best first.")] = 5


def run(config: Config) -> int:
    """Classify, print what was done and return the exit code."""
    import json

    summary = call(config)
    print(json.dumps(summary.as_dict()) if config.json else summary)
    return summary.exit_code


def call(config: Config) -> Summary | Forecast:
    """Classify and return what was done, or what would be (``dry_run``)."""
    from cvjobs import batch

    return batch.run(config, Classify(config))


class Classify:
    """The job: which model names the classes."""

    command = "classify"

    def __init__(self, config: Config) -> None:
        self._config = config

    def resolve(self, earlier: dict[str, Any]) -> Resolved:
        """Return the model's step and what identifies its results."""
        from cvjobs import labels, resolving
        from cvjobs.classification import ClassifyRequest

        c = self._config
        named = tuple(labels.read(c.labels)) if c.labels else ()
        request = ClassifyRequest(model=c.model, weights=c.weights, labels=named, top=c.top)
        return resolving.resolve(request, c.precision, earlier)
