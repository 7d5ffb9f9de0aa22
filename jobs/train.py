"""Train a classifier, detector, segmenter or autoencoder, on one machine or N workers; the run is then a model.

DATA is a folder of class folders, alone or below train, val and test; or a CSV or Parquet file with the columns path
and label (or labels), and perhaps split. A detector takes COCO's JSON, a folder of VOC's XML or of YOLO's txt files, or
a table of boxes; a segmenter a folder with images and masks (PNGs of the same names), or polygons in COCO's JSON or
YOLO's txt files. An autoencoder needs no labels.
After a kill the same command continues.

For example `cvjobs train photos -o run --model torchvision/mobilenet_v2 --epochs 10`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cvjobs.config.options import (
    MOST_WORKERS,
    AcceptLicence,
    Address,
    Bits,
    Confine,
    Exclude,
    Json,
    MaxCost,
    MaxErrorRate,
    MaxPixels,
    MaxTime,
    OnDevice,
    Precision,
    Price,
    StorageOptions,
    Truncated,
    Weights,
)
from cvjobs.training.recipe.recipe import Name
from cvjobs.training.recipe.recipe_options import replaceable, replaced

if TYPE_CHECKING:
    from cvjobs.training.checks.lr_range import LearningRate
    from cvjobs.training.plan import TaskName
    from cvjobs.training.predecessor import Predecessor
    from cvjobs.training.recipe.recipe import Recipe
    from cvjobs.training.training_summary import TrainingSummary


USUAL = {
    "classify": "torchvision/mobilenet_v2",
    "autoencoder": "small/autoencoder",
    "segment": "torchvision/lraspp_mobilenet_v3_large",
    "detect": "torchvision/fasterrcnn_resnet50_fpn",
    "instance": "torchvision/maskrcnn_resnet50_fpn",
}
BATCH = {"classify": 64, "autoencoder": 64, "segment": 8, "detect": 4, "instance": 4}  # few steps teach boxes little
OF_MANY = {"detect-many": 16}  # the same of a recipe
MOST_VALUES = 1_000_000  # of a vector: no memory holds the layers around more


@dataclass(frozen=True, kw_only=True)
@replaceable
class Config:
    """The options of ``cvjobs train``: these, and every setting of a recipe."""

    data: Annotated[
        str,
        typer.Argument(help="The images: a folder of class folders, a list (.csv, .tsv, .parquet), or any folder."),
    ]
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="FOLDER", help="The run's folder; the same folder continues the run.")
    ]
    task: Annotated[
        Literal["classify", "autoencoder", "segment", "detect"],
        typer.Option(
            help="What the model learns: the classes of images, vectors from which it can rebuild them, the classes of "
            "pixels, or boxes around objects.",
            rich_help_panel="Model, data and size",
        ),
    ] = "classify"
    kind: Annotated[
        Literal["semantic", "instance"] | None,
        typer.Option(
            help="What a segmenter gives: a class for every pixel, or objects with masks.  [default: by the model, "
            "or by the data: semantic for masks, instance for polygons]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The model as family/name, or its name; `cvjobs models --task train` lists them.  "
            "[default: torchvision/mobilenet_v2, small/autoencoder, torchvision/lraspp_mobilenet_v3_large, "
            "torchvision/fasterrcnn_resnet50_fpn or, for instances, torchvision/maskrcnn_resnet50_fpn]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The classifier below the head of a detector or segmenter, which --weights are of then.  [default: "
            "the model's own]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    weights: Weights = "pretrained"
    init_head_from_labels: Annotated[
        bool,
        typer.Option(
            "--init-head-from-labels",
            help="Start the classes that the weights know by name from the weights' own rows.",
            rich_help_panel="Model, data and size",
        ),
    ] = False
    dim: Annotated[
        int,
        typer.Option(
            min=1,
            max=MOST_VALUES,
            help="The number of values in an autoencoder's vectors.",
            rich_help_panel="Model, data and size",
        ),
    ] = 128
    recipe: Annotated[
        Name | None,
        typer.Option(
            help="The recipe: values for all settings, which the other options replace one by one.  "
            "[default: finetune; from-scratch without weights; autoencoder, segment and detect for these tasks]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A file with the names of the classes in masks, one on each line.  [default: a list near the masks]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    void: Annotated[
        str | None,
        typer.Option(
            metavar="none|N",
            help="The value of pixels in masks that do not count, or none where all do.  [default: 255]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    batch_size: Annotated[
        int | str | None,
        typer.Option(
            min=2,
            metavar="N|auto",
            help="The number of images in a step, over all workers; auto is the power of two up to 256 that fits.  "
            "[default: 64, 8 to segment, 4 to detect, 16 by detect-many]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    val: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=0.9,
            help="The share of the images to validate with, where the data have no val split.",
            rich_help_panel="Model, data and size",
        ),
    ] = 0.2
    seed: Annotated[
        int,
        typer.Option(min=0, help="The seed of every random choice.", rich_help_panel="Model, data and size"),
    ] = 0
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Start again, and replace the run that the folder holds.",
            rich_help_panel="Updates and failures",
        ),
    ] = False
    find_lr: Annotated[
        bool,
        typer.Option(
            "--find-lr",
            help="Try learning rates for 100 steps in this process, suggest one, and train nothing.",
            rich_help_panel="Look first",
        ),
    ] = False
    overfit_check: Annotated[
        bool,
        typer.Option(
            "--overfit-check",
            help="Check before training that a copy of the model learns the first batch by heart.",
            rich_help_panel="Look first",
        ),
    ] = False
    workers: Annotated[
        int | str | None,
        typer.Option(
            min=1,
            max=MOST_WORKERS,
            metavar="N|MIN:MAX",
            help="The number of Ray workers; MIN:MAX uses what the cluster has.  [default: this process; with "
            "--address one for each free GPU of the cluster, or for each machine of one without]",
            rich_help_panel="Machine",
        ),
    ] = None
    device: OnDevice = "auto"
    precision: Annotated[
        Precision,
        typer.Option(
            help="The number format of the model: auto is bf16 on GPUs that compute in it, else fp32.",
            rich_help_panel="Machine",
        ),
    ] = "auto"
    compile: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(
            help="Compile the model with torch.compile: auto does on a GPU where the training is long enough to gain.",
            rich_help_panel="Machine",
        ),
    ] = "auto"
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="A folder of each machine that keeps the decoded images for other runs.  [default: none]",
            rich_help_panel="Machine",
        ),
    ] = None
    cache_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="The size of the images to train with that stay decoded, as in 200GB; the rest is decoded again in "
            "each epoch.  [default: all]",
            rich_help_panel="Machine",
        ),
    ] = None
    cache_side: Annotated[
        int | None,
        typer.Option(
            min=8,
            metavar="N",
            help="The shorter side in pixels of the pictures that random crops are cut from.  "
            "[default: 1.5 times --img-size]",
            rich_help_panel="Machine",
        ),
    ] = None
    max_pixels: MaxPixels = 80_000_000
    bits: Bits = None
    truncated: Truncated = "fail"
    max_error_rate: MaxErrorRate = 0.1
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard", help="Write TensorBoard's event files to RUN/tensorboard, too.", rich_help_panel="General"
        ),
    ] = False
    storage_option: StorageOptions = ()
    confine: Confine = False
    exclude: Exclude = ()
    accept_licence: AcceptLicence = ()
    price: Price = ()
    max_cost: MaxCost = None
    max_time: MaxTime = None
    json: Json = False
    address: Address = None


def call(config: Config) -> TrainingSummary | LearningRate:
    """Train and return what came of it, or the rate that was found (``find_lr``)."""
    from cvjobs.common.progress import Progress

    with Progress("train"):  # which shows the imports, too
        return _train(config)


def _train(config: Config) -> TrainingSummary | LearningRate:
    from contextlib import closing

    from cvjobs.common import devices
    from cvjobs.config.spending import spending
    from cvjobs.images.decode_children import DecoderServer

    allowed = spending(config)
    with closing(DecoderServer()) as decoder_server:
        decoder_server.start()  # takes seconds, as do the imports
        devices.check_memory(devices.libraries(model=True), "Training")
        from cvjobs.config.byte_sizes import parse_bytes
        from cvjobs.evaluation.void import chosen
        from cvjobs.networks import class_names, local_copies
        from cvjobs.storage.storage_options import parse_options
        from cvjobs.training import run
        from cvjobs.training.checks import batch_size as checks_batch_size
        from cvjobs.training.predecessor import predecessor
        from cvjobs.training.request import TrainRequest

        storage = parse_options(config.storage_option)
        with local_copies.reached_with(storage):
            before = predecessor(config.weights)
            task = _task(config, before)
            if before is not None:
                before.check(task)
            model = config.model or (before.model if before is not None else USUAL[task])
            model, backbone = _on_backbone(config, task, model, before)
            request = TrainRequest(
                data=config.data,
                out=config.out,
                task=task,
                model=model,
                dim=before.dim if before is not None and task == "autoencoder" else config.dim,
                weights=config.weights,
                init_head_from_labels=config.init_head_from_labels,
                recipe=_recipe(config, task, model, before),
                warmup_asked=replaced(config)["warmup_epochs"] is not None,
                batch_size=checks_batch_size.batch(config.batch_size or OF_MANY.get(config.recipe or "", BATCH[task])),
                seed=config.seed,
                precision=config.precision,
                compile=config.compile,
                val=config.val,
                workers=config.workers,
                cache=config.cache,
                cache_size=0 if config.cache_size is None else parse_bytes(config.cache_size, "--cache-size"),
                cache_side=config.cache_side,
                max_pixels=config.max_pixels,
                bits=config.bits,
                truncated=config.truncated,
                max_error_rate=config.max_error_rate,
                mask_names=tuple(class_names.read(config.labels)) if config.labels else (),
                void=chosen(None, config.void),
                overwrite=config.overwrite,
                find_lr=config.find_lr,
                tensorboard=config.tensorboard,
                overfit_check=config.overfit_check,
                storage=storage,
                confine=config.confine,
                exclude=config.exclude,
                backbone=backbone,
                accept_licence=config.accept_licence,
                address=config.address,
                device=config.device,
                spending=allowed,
            )
            return run.train(request, decoder_server)


def _task(config: Config, before: Predecessor | None) -> TaskName:
    """Return the task by its own name: of objects with masks that is ``instance``."""
    from cvjobs.common.errors import WrongUse

    if config.task != "segment":
        if config.kind:
            raise WrongUse("--kind is for --task segment: leave it out.")
        return config.task
    from cvjobs.training.data import segment_kind

    kind = config.kind or segment_kind.of(config.data, config.model, None if before is None else before.task)
    return "instance" if kind == "instance" else "segment"


def _on_backbone(config: Config, task: TaskName, model: str, before: Predecessor | None) -> tuple[str, str]:
    """Return the name of a model on the backbone that is asked for, and of a detector the backbone beside it."""
    from cvjobs.common.errors import WrongUse

    if config.backbone and task == "segment":
        from cvjobs.networks.torchvision import segmenter_training

        return segmenter_training.composed(model, config.backbone), ""
    if config.backbone and task not in ("detect", "instance"):
        raise WrongUse("--backbone is for --task detect and segment: leave it out, and name the model with --model.")
    return model, config.backbone or (before.backbone if before is not None else "")


def _recipe(config: Config, task: TaskName, model: str, before: Predecessor | None) -> Recipe:
    """Return the named recipe with what was asked for; without a name, what suits the task and the weights.

    What begins with another run's weights has images of that run's size.
    """
    from cvjobs.training.recipe import recipe as recipe_recipe

    classes, masks = task != "autoencoder", task == "segment"
    scratch = before is None and (config.weights == "random" or model.startswith("small/"))
    own = {"autoencoder": "autoencoder", "segment": "segment", "detect": "detect", "instance": "detect"}
    name = config.recipe or own.get(task, "from-scratch" if scratch else "finetune")
    given = replaced(config)
    if before is not None and given["img_size"] is None:
        given["img_size"] = (before.side,)
    if task in ("detect", "instance"):
        from cvjobs.training.recipe.detection_recipe import detection

        return detection(name, masks=task == "instance", **given)
    return recipe_recipe.named(name, classes=classes, masks=masks, **given)
