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
