"""The options that several commands share; a driver's Config adds its own; and how a command goes to a cluster."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, TypeVar

import typer

# What no machine has, and no image: far above any use, so that a slip of the finger is a sentence.
MOST_WORKERS = 100_000
MOST_AT_ONCE = 1 << 20  # images
LONGEST_SIDE = 1_000_000  # pixels

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Device = Literal["auto", "cuda", "cpu"]

StorageOptions = Annotated[
    tuple[str, ...],
    typer.Option(
        "--storage-option",
        metavar="KEY=VALUE",
        help="A setting for s3://, gs:// and az://, such as endpoint=http://HOST:PORT, region=NAME or "
        "skip_signature=true; repeat the option for more.  [default: none]",
        rich_help_panel="Cluster and storage",
    ),
]
OnDevice = Annotated[
    Device,
    typer.Option(
        help="What the workers compute on: auto is GPUs where this machine, or with --address the cluster, has any.",
        rich_help_panel="Machine",
    ),
]
GpusPerWorker = Annotated[
    float,
    typer.Option(
        min=0.01,
        max=1,
        help="The share of a GPU that each worker takes; with 0.5 two of a small model share one.",
        rich_help_panel="Machine",
    ),
]
Confine = Annotated[
    bool,
    typer.Option(
        "--confine",
        help="Refuse what a list from others may not name: files and objects that are not below its own folder or "
        "bucket, links included, and web addresses that are not public.",
        rich_help_panel="Cluster and storage",
    ),
]
Exclude = Annotated[
    tuple[str, ...],
    typer.Option(
        "--exclude",
        metavar="PATTERN",
        help="A glob of names, or with a / of paths relative to the source, whose files and folders are left out; "
        "repeat the option for more.  [default: none]",
        rich_help_panel="Model, data and size",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS",
        metavar="ADDRESS",
        help="A Ray cluster: http://HOST:8265 runs the whole command there, HOST:PORT and auto only its workers.  "
        "[default: this machine]",
        rich_help_panel="Cluster and storage",
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as JSON, and nothing else, on stdout.", rich_help_panel="General"),
]
Weights = Annotated[
    str,
    typer.Option(
        metavar="pretrained|random|FILE|RUN",
        help="The weights of the model: published, random, or from a file or the folder of a training run.",
        rich_help_panel="Model, data and size",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="A file with the names of the classes, one on each line, for weights of your own.  [default: none]",
        rich_help_panel="Model, data and size",
    ),
]
ShorterSide = Annotated[
    int | None,
    typer.Option(
        min=32,
        max=LONGEST_SIDE,
        help="The length in pixels to which the shorter side is resized.  [default: the model's own]",
        rich_help_panel="Model, data and size",
    ),
]
Bits = Annotated[
    int | None,
    typer.Option(
        min=8,
        max=16,
        help="The bits that images of 16 bits use, where no tag of theirs says so.  [default: 16]",
        rich_help_panel="Model, data and size",
    ),
]
AcceptLicence = Annotated[
    tuple[str, ...],
    typer.Option(
        "--accept-licence",
        metavar="NAME",
        help="A licence of weights that is accepted though it forbids some use, by the name that `cvjobs models` "
        "shows; repeat the option for more.  [default: none]",
        rich_help_panel="Model, data and size",
    ),
]

SaveImages = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="A folder for a JPEG of each image with what was found drawn over it, kept like the results.  "
        "[default: none]",
        rich_help_panel="Results",
    ),
]
MaxPixels = Annotated[
    int,
    typer.Option(
        min=1,
        help="The largest image in pixels; a larger one fails before it is decoded.",
        rich_help_panel="Machine",
    ),
]
Truncated = Annotated[
    Literal["fail", "use"],
    typer.Option(
        help="The treatment of a picture that is cut short: an error (fail), or what can be read of it, the rest gray.",
        rich_help_panel="Updates and failures",
    ),
]
Decode = Annotated[
    Literal["auto", "cpu", "gpu"],
    typer.Option(
        help="What decodes JPEGs, which later runs keep: gpu decodes those that it decodes right, beside the "
        "processor; auto is cpu for a new output.",
        rich_help_panel="Machine",
    ),
]
Price = Annotated[
    tuple[str, ...],
    typer.Option(
        metavar="[NAME=]USD",
        help="The USD that an hour of a machine costs, of those that NAME is a label's value of or the host name, or "
        "else of every one; repeat the option for more.  [default: none]",
        rich_help_panel="Time and money",
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        metavar="USD",
        min=0.01,
        help="The USD that this command may cost; it ends before, and the same command continues.  [default: any]",
        rich_help_panel="Time and money",
    ),
]
MaxTime = Annotated[
    int | str | None,
    typer.Option(
        metavar="SECONDS|DURATION",
        min=1,
        help="The time that this command may take, as in 90s, 15m or 2h30m; it ends before, and the same command "
        "continues.  [default: any]",
        rich_help_panel="Time and money",
    ),
]
MaxErrorRate = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="The largest share of images that may fail; above it the exit code is 3.",
        rich_help_panel="Updates and failures",
    ),
]


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Where the images are, where the results go, and how a run behaves."""

    source: Annotated[
        str,
        typer.Argument(help="The images: a folder, a glob, one image, or a list (.txt, .lst, .csv, .tsv, .parquet)."),
    ]
    out: Annotated[
        str,
        typer.Option(
            "-o", "--out", metavar="FOLDER", help="The output folder; the same folder continues a run and updates it."
        ),
    ]
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_WORKERS,
            help="The number of Ray workers.  [default: this process, or one worker for each GPU; with --address one "
            "for each free GPU of the cluster, or for each machine of one without]",
            rich_help_panel="Machine",
        ),
    ] = None
    device: OnDevice = "auto"
    gpus_per_worker: GpusPerWorker = 1.0
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_AT_ONCE,
            help="The number of images in a batch, halved when memory runs out.  [default: found by trial]",
            rich_help_panel="Machine",
        ),
    ] = None
    precision: Annotated[
        Precision,
        typer.Option(
            help="The number format of the model, which later runs keep: auto is bf16 on GPUs that compute in it, else "
            "fp32.",
            rich_help_panel="Machine",
        ),
    ] = "auto"
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The largest number of images to compute; nothing is deleted.  [default: all]",
            rich_help_panel="Look first",
        ),
    ] = None
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Compute every failed image again.", rich_help_panel="Updates and failures"
        ),
    ] = False
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Compute every image again; the old results stay until the new ones are complete.",
            rich_help_panel="Updates and failures",
        ),
    ] = False
    allow_deletions: Annotated[
        bool,
        typer.Option(
            "--allow-deletions",
            help="Drop the rows of images that are gone, even where that is over 20% of all rows.",
            rich_help_panel="Updates and failures",
        ),
    ] = False
    changed_by: Annotated[
        Literal["time", "content"],
        typer.Option(
            help="The sign of a changed image: its size and time stamp, or its content (which reads touched files).",
            rich_help_panel="Updates and failures",
        ),
    ] = "time"
    max_pixels: MaxPixels = 80_000_000
    bits: Bits = None
    truncated: Truncated = "fail"
    max_error_rate: MaxErrorRate = 0.1
    exclude: Exclude = ()
    accept_licence: AcceptLicence = ()
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="List the images, time a sample, predict time and size, and write nothing.",
            rich_help_panel="Look first",
        ),
    ] = False
    price: Price = ()
    max_cost: MaxCost = None
    max_time: MaxTime = None
    json: Json = False
    storage_option: StorageOptions = ()
    confine: Confine = False
    address: Address = None


@dataclass(frozen=True, kw_only=True)
class ObjectOptions:
    """Which objects a detector or an instance segmenter looks for, and which of them it keeps."""

    conf: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="The score above which an object is kept.  [default: the model's own]",
            rich_help_panel="Objects",
        ),
    ] = None
    iou: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="The overlap (IoU) above which only the best of two boxes is kept.  [default: the model's own]",
            rich_help_panel="Objects",
        ),
    ] = None
    max_det: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The largest number of objects in an image or tile, best first.  [default: the model's own]",
            rich_help_panel="Objects",
        ),
    ] = None
    classes: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="The classes to look for, by name or id, with commas in between.  [default: all]",
            rich_help_panel="Objects",
        ),
    ] = ""


Chosen = TypeVar("Chosen")


def chosen(settings: type[Chosen], config: object) -> Chosen:
    """Return a dataclass of settings filled from the options of the same names; the others keep their defaults."""
    known: Any = settings
    given = {field.name: getattr(config, field.name) for field in fields(known) if hasattr(config, field.name)}
    return settings(**given)


@dataclass(frozen=True, kw_only=True)
class SubmitOptions:
    """How a command is sent to a cluster: as the job of which id ("" for a new one), and whether to follow it."""

    id: str = ""
    detach: bool = False


def is_cluster(address: str | None) -> bool:
    """Return whether an address is a cluster's Jobs API, to which a command is sent, and not Ray's own."""
    return bool(address) and str(address).startswith(("http://", "https://"))
