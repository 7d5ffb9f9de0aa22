"""Index the vectors of an embed output for search by cosine, or bring the index up to date with them.

The same command again adds new vectors, replaces changed ones and leaves out those that are gone.

For example `cvjobs index vectors -o index`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cvjobs.config.fields import REQUIRED
from cvjobs.config.options import MOST_WORKERS, Address, Json, StorageOptions

if TYPE_CHECKING:
    from cvjobs.common.progress import Progress
    from cvjobs.indexing.index_report import IndexReport


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs index``."""

    embeddings: Annotated[
        str, typer.Argument(help="The -o folder of `cvjobs embed`; an index for --info and --rollback.")
    ]
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="The index's folder; the same folder is brought up to date. Only --info and --rollback do without.  "
            "[default: none]",
            rich_help_panel=REQUIRED,
        ),
    ] = None
    kind: Annotated[
        Literal["auto", "exact", "ivf", "pq"],
        typer.Option(
            help="The kind of index; auto is the most exact that fits into --max-memory and answers at once.",
            rich_help_panel="Model, data and size",
        ),
    ] = "auto"
    target_recall: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="The share of the true 10 nearest neighbours that a search must find.",
            rich_help_panel="Model, data and size",
        ),
    ] = 0.95
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="Build the index anew, even where an update would do.",
            rich_help_panel="Updates and failures",
        ),
    ] = False
    rollback: Annotated[
        bool,
        typer.Option(
            "--rollback",
            help="Return an index to the generation before its newest one.",
            rich_help_panel="Updates and failures",
        ),
    ] = False
    info: Annotated[
        bool,
        typer.Option("--info", help="Say what an index holds, and change nothing.", rich_help_panel="Look first"),
    ] = False
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="The memory of a search, as in 400MB or 2GiB.  [default: half of what is free]",
            rich_help_panel="Machine",
        ),
    ] = None
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            max=MOST_WORKERS,
            help="The number of Ray workers that add vectors to an index of kind ivf or pq.",
            rich_help_panel="Machine",
        ),
    ] = 1
    storage_option: StorageOptions = ()
    json: Json = False
    address: Address = None


def call(config: Config) -> IndexReport:
    """Index, or look at an index, and return what was done."""
    from cvjobs.common.progress import Progress

    with Progress("index") as progress:  # which shows the imports, too
        return _index(config, progress)


def _index(config: Config, progress: Progress) -> IndexReport:
    from dataclasses import replace

    from cvjobs.common.errors import WrongUse
    from cvjobs.indexing import index_update, kinds
    from cvjobs.indexing.builder import build
    from cvjobs.storage.storage_options import parse_options

    storage = parse_options(config.storage_option)
    if config.info and config.rollback:
        raise WrongUse("--info and --rollback are two commands: give one of them.")
    if config.info or config.rollback:
        look = index_update.info if config.info else index_update.rollback
        return replace(look(config.out or config.embeddings, storage), storage=storage)
    if config.out is None:
        raise WrongUse("-o/--out is missing: name the index's folder.")
    add: build.Add = build.in_turn
    if config.workers > 1 or config.address:
        from cvjobs.indexing.builder import ray_tasks

        add = ray_tasks.spread(config.workers, config.address)
    order = index_update.IndexRequest(
        kind=config.kind,
        max_memory=kinds.parse_size(config.max_memory) if config.max_memory else None,
        target_recall=config.target_recall,
        rebuild=config.rebuild,
        workers=config.workers,
        add=add,
        storage=storage,
    )
    return replace(index_update.update(config.embeddings, config.out, order, progress), storage=storage)
