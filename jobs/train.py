"""Train a classifier or an autoencoder, on one machine or N workers; the run is a model for every other command.

DATA is a folder of class folders, alone or below train, val and test, or a CSV or Parquet file with the columns path
and label, or labels, and perhaps split; an autoencoder needs no labels. Killed at any moment, the same command
continues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cvjobs.options import RecipeOptions

if TYPE_CHECKING:
    from cvjobs.recipes.settings import Recipe
    from cvjobs.training.rates import LearningRate
    from cvjobs.training.summary import TrainingSummary


@dataclass(frozen=True, kw_only=True)
class Config(RecipeOptions):
    """The options of ``cvjobs train``."""

    data: Annotated[
        str, typer.Argument(help="A folder of class folders, or a list (.csv, .tsv, .parquet); or any images.")
    ]
    out: Annotated[str, typer.Option("-o", "--out", help="The run's folder; the same one continues.")]
    task: Annotated[
        Literal["classify", "autoencoder"],
        typer.Option(help="Name what images show, or make vectors that they can be painted from again."),
    ] = "classify"
    model: Annotated[
        str | None,
        typer.Option(
            help="family/name, or a name; `cvjobs models --task train` lists them.  "
            "[default: torchvision/mobilenet_v2, or small/autoencoder]"
        ),
    ] = None
    dim: Annotated[int, typer.Option(min=1, help="Numbers in an autoencoder's vectors.")] = 128
    weights: Annotated[str, typer.Option(help="To begin with: pretrained, random, or a file of weights.")] = (
        "pretrained"
    )
    init_head_from_labels: Annotated[
        bool,
        typer.Option(
            "--init-head-from-labels", help="Begin classes that the weights know by name with the weights' own rows."
        ),
    ] = False
    batch_size: Annotated[
        int | str,
        typer.Option(
            min=2, metavar="N|auto", help="Images a step, over all workers; auto: 256 or the power of two that fits."
        ),
    ] = 64
    workers: Annotated[
        int | str | None,
        typer.Option(
            min=1, metavar="N|MIN:MAX", help="Ray workers; MIN:MAX: as many as there are.  [default: this process]"
        ),
    ] = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"], typer.Option(help="auto: bf16 on GPUs that have it, else fp32.")
    ] = "auto"
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is random.")] = 0
    val: Annotated[
        float, typer.Option(min=0.001, max=0.9, help="The share to validate with, where the data have no val split.")
    ] = 0.2
    cache: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Keep decoded images there, for other runs.  [default: not]"),
    ] = None
    max_pixels: Annotated[int, typer.Option(min=1, help="Larger images fail without being decoded.")] = 80_000_000
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew, whatever the run's folder has.")] = False
    find_lr: Annotated[
        bool,
        typer.Option(
            "--find-lr", help="Try rates for 100 steps in this process, suggest one for --lr, and train nothing."
        ),
    ] = False
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard's event files, too, to RUN/tensorboard.")
    ] = False
    overfit_check: Annotated[
        bool,
        typer.Option("--overfit-check", help="Before training, see whether a copy learns the first batch by heart."),
    ] = False
    storage_option: Annotated[
        tuple[str, ...],
        typer.Option("--storage-option", metavar="KEY=VALUE", help="For s3://, gs:// and az://: endpoint=..., ..."),
    ] = ()
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else, on stdout.")] = False
    address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS",
            help="A Ray cluster: http://HOST:8265 sends it the command, host:port and auto only its workers.",
        ),
    ] = None


def run(config: Config) -> int:
    """Train, print what came of it and return the exit code."""
    import json

    summary = call(config)
    print(json.dumps(summary.as_dict()) if config.json else summary)
    return 0


def call(config: Config) -> TrainingSummary | LearningRate:
    """Train and return what came of it, or the rate that was found (``find_lr``)."""
    from contextlib import closing

    from cvjobs.decoding.lanes import Nursery

    with closing(Nursery()) as nursery:
        nursery.start()  # takes seconds, as do the imports
        from cvjobs.remote import parse_options
        from cvjobs.training import session, sizing
        from cvjobs.training.request import TrainRequest

        model = config.model or ("small/autoencoder" if config.task == "autoencoder" else "torchvision/mobilenet_v2")
        request = TrainRequest(
            data=config.data,
            out=config.out,
            task=config.task,
            model=model,
            dim=config.dim,
            weights=config.weights,
            init_head_from_labels=config.init_head_from_labels,
            recipe=_recipe(config, model),
            batch_size=sizing.batch(config.batch_size),
            seed=config.seed,
            precision=config.precision,
            val=config.val,
            workers=config.workers,
            cache=config.cache,
            max_pixels=config.max_pixels,
            overwrite=config.overwrite,
            find_lr=config.find_lr,
            tensorboard=config.tensorboard,
            overfit_check=config.overfit_check,
            storage=parse_options(config.storage_option),
            address=config.address,
        )
        return session.train(request, nursery)


def _recipe(config: Config, model: str) -> Recipe:
    """Return the named recipe with what was asked for; without a name, what suits the task and the weights."""
    from dataclasses import fields

    from cvjobs.recipes import settings

    classes = config.task == "classify"
    scratch = config.weights == "random" or model.startswith("small/")
    name = config.recipe or (("from-scratch" if scratch else "finetune") if classes else "autoencoder")
    given = {
        field.name: getattr(config, field.name) for field in fields(settings.Recipe) if hasattr(config, field.name)
    }
    for pair in ("scale", "ratio"):
        if given[pair] is not None:
            given[pair] = settings.span(given[pair], f"--{pair}")
    if given["img_size"] is not None:
        given["img_size"] = settings.sides(given["img_size"])
    return settings.named(name, classes=classes, **given)
