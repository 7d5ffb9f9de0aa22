"""Check an output, an index, a training run or nights: every file as it was written, every image exactly once.

Exit code 0: exact; 4: images are missing; 1: another problem, named with what to do. --repair first brings back a
snapshot that is damaged: from its copy, or else from the files of results and errors, of which no row is dropped.

For example `cvjobs verify vectors --source photos`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cvjobs.common.errors import WrongUse
from cvjobs.config.options import Confine, Exclude, Json, StorageOptions

if TYPE_CHECKING:
    from cvjobs.dataset.folder_report import FolderReport
    from cvjobs.dataset.verify import VerifyReport
    from cvjobs.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs verify``."""

    out: Annotated[str, typer.Argument(help="The folder that a command left.")]
    source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="The images to list and compare with.  [default: the list of the last run]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Bring back a damaged snapshot first.", rich_help_panel="Model, data and size"),
    ] = False
    exclude: Exclude = ()
    storage_option: StorageOptions = ()
    confine: Confine = False
    json: Json = False


def call(config: Config) -> VerifyReport | FolderReport:
    """Check, after a repair where that is asked for, and return what was found."""
    from dataclasses import replace

    from cvjobs.common.progress import Progress
    from cvjobs.dataset import contents, snapshot, verified
    from cvjobs.dataset.repair import repair
    from cvjobs.dataset.verify import verify
    from cvjobs.sources.listing import list_source
    from cvjobs.storage.storage_options import parse_options
    from cvjobs.storage.store import open_store

    if config.exclude and not config.source:
        raise WrongUse("--exclude is for the images that are listed: name them with --source, or leave it out.")
    options = parse_options(config.storage_option)
    store = open_store(config.out, options=options, option="OUT")
    contents.check_there(store)
    held = contents.of(store)
    if held and contents.RESULTS not in held and (check := _check(min(held))):
        if config.source:
            raise WrongUse(f"{store.place} holds {min(held)}, which lists no images: leave out --source.")
        if config.repair:
            raise WrongUse(f"{store.place} holds {min(held)}, which its own command mends: leave out --repair.")
        return check(store)
    done: list[str] = []
    if config.repair:
        with Progress("verify") as progress:
            done = repair(store, progress.phase)
    listing = None
    if config.source:
        then = snapshot.latest(store).listing_rules
        listing = list_source(config.source, options, confine=config.confine, exclude=config.exclude, rules=then)
    report = replace(verify(store, listing), repaired=tuple(done))
    if report.exit_code:
        verified.forget(store)
    else:
        verified.note(store, report.version)
    return report


def _check(held: str) -> Callable[[Store], FolderReport] | None:
    """Return what checks a folder that holds something else than images' results."""
    from cvjobs.dataset import contents

    if held in (contents.INDEX, contents.QUERY):
        from cvjobs.indexing import verify as of_index

        return of_index.verify if held == contents.INDEX else of_index.verify_answers
    if held == contents.RUN:
        from cvjobs.training import verify as of_run

        return of_run.verify
    if held == contents.NIGHTS:
        from cvjobs.operations.nightly import verify as of_nights

        return of_nights.verify
    return None
