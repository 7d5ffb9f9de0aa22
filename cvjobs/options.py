"""The options that every batch job shares, a driver's Config adds its own; and how any command is sent to a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Where the images are, where the results go, and how a run behaves."""

    source: Annotated[
        str, typer.Argument(help="A folder, a glob, an image, or a list (.txt, .lst, .csv, .tsv, .parquet) of images.")
    ]
    out: Annotated[str, typer.Option("-o", "--out", help="The output folder; the same one continues and updates.")]
    workers: Annotated[
        int | None, typer.Option(min=1, help="Ray workers. Default: this process, or one worker a GPU.")
    ] = None
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images a batch. Default: found by trial, halved on out-of-memory.")
    ] = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        typer.Option(help="auto: bf16 on GPUs that have it, else fp32; kept by later runs."),
    ] = "auto"
    limit: Annotated[int | None, typer.Option(min=1, help="Compute at most so many images; delete nothing.")] = None
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try all failed images again.")] = False
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Recompute all; the old results stay until the new ones are complete.")
    ] = False
    allow_deletions: Annotated[
        bool, typer.Option("--allow-deletions", help="Drop the rows of images that are gone, however many.")
    ] = False
    changed_by: Annotated[
        Literal["time", "content"],
        typer.Option(help="What makes an image new: its size and time stamp, or its content (reads touched files)."),
    ] = "time"
    max_pixels: Annotated[int, typer.Option(min=1, help="Larger images fail without being decoded.")] = 80_000_000
    max_error_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Exit with 3 where a larger share of the images failed.")
    ] = 0.1
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List, time a sample and predict time and size; write nothing.")
    ] = False
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else, on stdout.")] = False
    storage_option: Annotated[
        tuple[str, ...],
        typer.Option(
            "--storage-option",
            metavar="KEY=VALUE",
            help="For s3://, gs:// and az://: endpoint=http://HOST:PORT, region=..., skip_signature=true, ...",
        ),
    ] = ()
    address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS",
            help="A Ray cluster: http://HOST:8265 sends it the command, host:port and auto only its workers.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How a command is sent to a cluster: as the job of which id ("" for a new one), and whether to follow it."""

    id: str = ""
    detach: bool = False


def is_cluster(address: str | None) -> bool:
    """Return whether an address is a cluster's Jobs API, to which a command is sent, and not Ray's own."""
    return bool(address) and str(address).startswith(("http://", "https://"))


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """How to train. What is not given is the recipe's own; ``cvjobs.recipes.settings`` knows the choices."""

    recipe: Annotated[
        str | None,
        typer.Option(
            help="finetune, from-scratch, quick or autoencoder; the rest replaces settings of it. [default: fitting]"
        ),
    ] = None
    epochs: Annotated[int | None, typer.Option(min=1, help="Times that every image is seen.")] = None
    img_size: Annotated[
        str | None, typer.Option(metavar="SIDE[:SIDE]", help="Pixels; two for the first to the last epoch's.")
    ] = None
    opt: Annotated[str | None, typer.Option(help="sgd, rmsprop, adam, adamw, nadamw, lamb, lars or lion.")] = None
    lr: Annotated[float | None, typer.Option(help="The highest rate at 64 images a step; grows with those.")] = None
    momentum: Annotated[float | None, typer.Option(help="Of optimizers that have one.")] = None
    weight_decay: Annotated[float | None, typer.Option(help="Not of biases and norms.")] = None
    layer_decay: Annotated[float | None, typer.Option(help="A layer's rate as a share of the next one's.")] = None
    freeze_until: Annotated[str | None, typer.Option(metavar="LAYER", help="The first layer that learns.")] = None
    clip_grad: Annotated[float | None, typer.Option(help="Clip gradients at this; 0 does not.")] = None
    clip_mode: Annotated[str | None, typer.Option(help="norm, value or agc.")] = None
    accumulate: Annotated[int | None, typer.Option(min=1, help="Parts that a step is computed in, to save memory.")] = (
        None
    )
    sched: Annotated[str | None, typer.Option(help="constant, step, cosine, onecycle, cyclic, linear or plateau.")] = (
        None
    )
    warmup_epochs: Annotated[float | None, typer.Option(help="In which the rate grows from nothing.")] = None
    decay_epochs: Annotated[float | None, typer.Option(help="Between decays of step, plateau and cyclic.")] = None
    decay_rate: Annotated[float | None, typer.Option(help="What step and plateau multiply the rate by.")] = None
    min_lr: Annotated[float | None, typer.Option(help="The share of --lr that no schedule falls below.")] = None
    patience: Annotated[int | None, typer.Option(min=0, help="Stop after so many epochs without a better one.")] = None
    loss: Annotated[str | None, typer.Option(help="ce, focal or bce; of pictures mse, l1 or ssim; or auto.")] = None
    smoothing: Annotated[float | None, typer.Option(help="Of labels.")] = None
    focal_gamma: Annotated[float | None, typer.Option(help="Of --loss focal.")] = None
    class_weights: Annotated[str | None, typer.Option(help="none, inverse or effective (number of images).")] = None
    logit_adjustment: Annotated[float | None, typer.Option(help="Times the log of the classes' frequencies.")] = None
    sampling: Annotated[str | None, typer.Option(help="shuffle, or balanced over the classes.")] = None
    drop_last: Annotated[
        bool, typer.Option("--drop-last", help="Leave out images that fill no whole step at an epoch's end.")
    ] = False
    scale: Annotated[str | None, typer.Option(metavar="LOW:HIGH", help="Of random crops, as shares of the area.")] = (
        None
    )
    ratio: Annotated[str | None, typer.Option(metavar="LOW:HIGH", help="Of random crops, width over height.")] = None
    hflip: Annotated[float | None, typer.Option(help="The share of images mirrored left to right.")] = None
    vflip: Annotated[float | None, typer.Option(help="The share of images turned upside down.")] = None
    color_jitter: Annotated[float | None, typer.Option(help="How much brightness, contrast and colour vary.")] = None
    aa: Annotated[str | None, typer.Option(help="none, autoaugment, randaugment, trivialaugment or augmix.")] = None
    erasing: Annotated[float | None, typer.Option(help="The share of images of which a box is blanked.")] = None
    mixup: Annotated[float | None, typer.Option(help="Alpha of mixing images; 0 does not.")] = None
    cutmix: Annotated[float | None, typer.Option(help="Alpha of pasting boxes of images; 0 does not.")] = None
    denoise: Annotated[float | None, typer.Option(help="Noise that an autoencoder removes, as a share of 1.")] = None
    ema: Annotated[float | None, typer.Option(help="The decay of a moving average of the weights; 0: none.")] = None
    swa: Annotated[float | None, typer.Option(help="The share of epochs, the last, whose weights are averaged.")] = None
