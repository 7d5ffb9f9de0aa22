"""Check an output: every file as it was written, every image exactly once.

Exit code 0: exact; 4: images are missing; 1: another problem, named with what to do.

For example `cvjobs verify vectors --source photos`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cvjobs.config.options import Json, StorageOptions

if TYPE_CHECKING:
    from cvjobs.dataset.verify import VerifyReport


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs verify``."""

    out: Annotated[str, typer.Argument(help="The output folder of a batch job.")]
    source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="The images to list and compare with.  [default: the list of the last run]",
            rich_help_panel="Model, data and size",
        ),
    ] = None
    storage_option: StorageOptions = ()
    json: Json = False


def call(config: Config) -> VerifyReport:
    """Check and return what was found."""
    from cvjobs.dataset import verified
    from cvjobs.dataset.verify import verify
    from cvjobs.sources.listing import list_source
    from cvjobs.storage.storage_options import parse_options
    from cvjobs.storage.store import open_store

    options = parse_options(config.storage_option)
    listing = list_source(config.source, options) if config.source else None
    store = open_store(config.out, options=options)
    report = verify(store, listing)
    if not report.exit_code:
        verified.note(store, report.version)
    return report
