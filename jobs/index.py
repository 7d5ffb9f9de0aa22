"""Index the vectors of an embed output for search by cosine, or bring the index up to date with them.

The same command again adds what is new, replaces what changed and leaves out what is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from cvjobs.retrieval.report import Report


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs index``."""

    embeddings: Annotated[
        str, typer.Argument(help="The -o folder of `cvjobs embed`; an index, with --info and --rollback.")
    ]
    out: Annotated[
        str | None, typer.Option("-o", "--out", help="The index's folder; the same one is brought up to date.")
    ] = None
    kind: Annotated[
        Literal["auto", "exact", "ivf", "pq"],
        typer.Option(help="auto: the most exact that fits into --max-memory and answers at once."),
    ] = "auto"
    max_memory: Annotated[str | None, typer.Option(help="As in 400MB or 2GiB.  [default: half of what is free]")] = None
    target_recall: Annotated[
        float, typer.Option(min=0, max=1, help="The share of the true 10 nearest that must be found.")
    ] = 0.95
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build anew, even where an update would do.")] = False
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Make the generation before the newest one of an index count again.")
    ] = False
    info: Annotated[bool, typer.Option("--info", help="Say what an index holds; change nothing.")] = False
    workers: Annotated[int, typer.Option(min=1, help="Ray workers that add the vectors, of kinds ivf and pq.")] = 1
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
    """Index, print what was done and return the exit code."""
    import json

    report = call(config)
    print(json.dumps(report.as_dict()) if config.json else report)
    return 0


def call(config: Config) -> Report:
    """Index, or look at an index, and return what was done."""
    from cvjobs.errors import WrongUse
    from cvjobs.progress import Progress
    from cvjobs.remote import parse_options
    from cvjobs.retrieval import build, kinds, upkeep

    storage = parse_options(config.storage_option)
    if config.info and config.rollback:
        raise WrongUse("--info and --rollback are two commands: give one of them.")
    if config.info or config.rollback:
        return (upkeep.info if config.info else upkeep.rollback)(config.out or config.embeddings, storage)
    if config.out is None:
        raise WrongUse("-o/--out is missing: name the index's folder.")
    add: build.Add = build.in_turn
    if config.workers > 1 or config.address:
        from cvjobs import adding

        add = adding.spread(config.workers, config.address)
    order = upkeep.Order(
        kind=config.kind,
        max_memory=kinds.parse_size(config.max_memory) if config.max_memory else None,
        target_recall=config.target_recall,
        rebuild=config.rebuild,
        workers=config.workers,
        add=add,
        storage=storage,
    )
    with Progress("index") as progress:
        return upkeep.update(config.embeddings, config.out, order, progress.say)
