"""Find the neighbours of images, or near-duplicates: rows in Parquet, a table, a page of thumbnails.

SOURCE is an image, a folder, a list or an output of `cvjobs embed`; images are embedded with the index's own model.
With -o the same command continues after a kill, and replaces the rows as a whole when it runs again.

For example `cvjobs query index photo.jpg -k 5`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from cvjobs.common.errors import WrongUse
from cvjobs.config.fields import REQUIRED
from cvjobs.config.options import AcceptLicence, Confine, Exclude, Json, MaxErrorRate, StorageOptions

if TYPE_CHECKING:
    from cvjobs.common.progress import Progress
    from cvjobs.indexing.search.answers import Duplicates, Neighbours
    from cvjobs.indexing.search.opened_index import Index
    from cvjobs.indexing.search.output import AnswerFolder

K = 10


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs query``."""

    index: Annotated[str, typer.Argument(help="The output folder of `cvjobs index`.")]
    source: Annotated[
        str | None,
        typer.Argument(
            help="The queries: an image, a folder, a glob, a list, or an output of `cvjobs embed`. Only --duplicates "
            "does without.  [default: none]",
            rich_help_panel=REQUIRED,
        ),
    ] = None
    k: Annotated[
        int | None,
        typer.Option(
            "-k", min=1, help=f"The number of neighbours of each query.  [default: {K}]", rich_help_panel="Search"
        ),
    ] = None
    min_score: Annotated[
        float | None,
        typer.Option(
            min=-1,
            max=1,
            help="The smallest cosine of a neighbour.  [default: none, measured with --duplicates]",
            rich_help_panel="Search",
        ),
    ] = None
    exclude_self: Annotated[
        bool,
        typer.Option(
            "--exclude-self",
            help="Leave out the query's own file, or the copies of a query from another folder.",
            rich_help_panel="Search",
        ),
    ] = False
    duplicates: Annotated[
        bool,
        typer.Option(
            "--duplicates", help="Find groups of near-duplicates within the index itself.", rich_help_panel="Search"
        ),
    ] = False
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="The folder for the rows, as Parquet.  [default: none]",
            rich_help_panel="Results",
        ),
    ] = None
    html: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="The file for a page of thumbnails.  [default: none]", rich_help_panel="Results"
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The file of the model's weights.  [default: where the index had them]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    accept_licence: AcceptLicence = ()
    max_error_rate: MaxErrorRate = 0.1
    exclude: Exclude = ()
    storage_option: StorageOptions = ()
    confine: Confine = False
    json: Json = False
    address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS",
            metavar="ADDRESS",
            help="A Ray cluster: http://HOST:8265 runs the whole command there, HOST:PORT embeds the queries, with -o."
            "  [default: this machine]",
            rich_help_panel="Cluster and storage",
        ),
    ] = None


def run(config: Config) -> int:
    """Answer, print the answer and return the exit code."""
    import json

    from cvjobs.config import commands
    from cvjobs.indexing.search import answer_tables

    answer = call(config)
    with commands.printing(config.out or config.html or ""):
        if config.json:
            rows = {} if config.out else {"rows": answer.to_arrow().to_pylist()}
            print(json.dumps(answer.as_dict() | rows))
        else:
            answer_tables.show(answer)
    return answer.exit_code


def call(config: Config) -> Neighbours | Duplicates:
    """Answer and return the neighbours, or the groups of near-duplicates (``duplicates``), with their rows."""
    _check(config)
    from cvjobs.common.progress import Progress

    with Progress("query") as progress:  # which shows the imports, too
        return _answer(config, progress)


def _answer(config: Config, progress: Progress) -> Neighbours | Duplicates:
    from cvjobs.common.signals import stoppable
    from cvjobs.dataset import contents
    from cvjobs.indexing.search import output
    from cvjobs.indexing.search.answers import keep
    from cvjobs.indexing.search.opened_index import open_index
    from cvjobs.storage.storage_options import parse_options
    from cvjobs.storage.store import named

    options = parse_options(config.storage_option)
    if config.html:
        contents.check_part(named(config.html, options), "name another file with --html", contents.QUERY)
    with (
        stoppable(),
        open_index(config.index, options) as index,
        output.opened(config.out, config.index, index.generation, options) as out,
    ):
        index.scores = out.scores
        progress.phase("reading the index")
        answer = (_duplicates if config.duplicates else _neighbours)(config, index, out, progress)
        keep(answer)
    return answer


def _check(config: Config) -> None:
    if not config.duplicates and config.source is None:
        raise WrongUse("SOURCE is missing: name the images to look for, or --duplicates of the index itself.")
    useless = {
        "SOURCE": config.source is not None,
        "-k": config.k is not None,
        "--exclude-self": config.exclude_self,
        "--weights": config.weights is not None,
        "--exclude": bool(config.exclude),
    }
    if config.duplicates and any(useless.values()):
        named = next(name for name, given in useless.items() if given)
        raise WrongUse(f"--duplicates compares the images of the index with each other: leave out {named}.")


def _neighbours(config: Config, index: Index, out: AnswerFolder, progress: Progress) -> Neighbours:
    """Embed the queries where they are images, and stream them through the index."""
    from cvjobs.indexing.search import answers, embed_queries, gallery, queries

    assert config.source is not None
    model = embed_queries.QueryModel(index=out.index, generation=index.generation, weights=config.weights)
    options = {
        "max_error_rate": config.max_error_rate,
        "storage_option": config.storage_option,
        "confine": config.confine,
        "exclude": config.exclude,
        "accept_licence": config.accept_licence,
        # Without -o the vectors go to a folder of this machine, which others need not see.
        "address": config.address if config.out else None,
    }
    asked = embed_queries.ask(config.source, model, out, options)
    wish = queries.QueryOptions(k=config.k or K, min_score=config.min_score, exclude_self=config.exclude_self)
    progress.phase("searching")
    show = progress.counting(len(asked.queries), "queries", "queries")
    found = queries.search(index, asked.queries, wish, out, show)
    answer = answers.Neighbours(
        **answers.about(index, out),
        min_score=config.min_score,
        html=config.html or "",
        **answers.took(progress),
        exit_code=asked.exit_code,
        source=config.source,
        k=wish.k,
        failed=sum(asked.failures.values()),
        failures=asked.failures,
        failed_images=asked.failed,
        skipped_by=asked.skipped_by,
        left_out=asked.left_out,
        **vars(found),
    )
    if config.html:
        progress.phase("page")
        gallery.write(config.html, gallery.of_neighbours(answer, index, asked.queries.origin, out.options), out.options)
    return replace(answer, **answers.took(progress))


def _duplicates(config: Config, index: Index, out: AnswerFolder, progress: Progress) -> Duplicates:
    """Group the images of the index."""
    from cvjobs.indexing.search import answers, gallery
    from cvjobs.indexing.search import duplicates as search_duplicates

    progress.phase("comparing")
    found = search_duplicates.search(index, config.min_score, out, progress.counting(len(index)))
    answer = answers.Duplicates(
        **answers.about(index, out),
        html=config.html or "",
        **answers.took(progress),
        **vars(found),
    )
    if config.html:
        progress.phase("page")
        gallery.write(config.html, gallery.of_duplicates(answer, index, out.options), out.options)
    return replace(answer, **answers.took(progress))
