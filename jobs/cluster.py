"""Start, end and look at a place to run: `cvjobs cluster up local`, then --address http://127.0.0.1:8265.

`local` is this machine: a Ray head that stays until `down`, reached from this machine only. The others need your
values first: copy `hosts` (machines over SSH), `aws` or `kuberay`, fill in the copy and name it, as in
`cvjobs cluster up ./hosts.yaml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cvjobs.config.options import Json

if TYPE_CHECKING:
    from cvjobs.clusters.files import Status


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs cluster``."""

    action: Annotated[
        Literal["up", "down", "status"], typer.Argument(help="The action: start, end, or look at the cluster.")
    ]
    name: Annotated[
        str,
        typer.Argument(
            help="The cluster: a file of cluster/ by its name (aws, hosts, kuberay, local), or your own: ./NAME.yaml.",
            rich_help_panel="Cluster and storage",
        ),
    ] = "local"
    json: Json = False


def call(config: Config) -> Status:
    """Do it and return how the cluster is."""
    from cvjobs.clusters import files
    from cvjobs.common import plugins
    from cvjobs.common.progress import Progress

    name, file = files.called(config.name), files.described(config.name)
    kind = plugins.load("cvjobs.clusters", "kind of cluster", file["kind"], files.KINDS)
    if config.action == "status":
        found: Status = kind.status(name, file)
        return found
    with Progress("cluster") as progress:
        changed: Status = getattr(kind, config.action)(name, file, progress.phase)
    return changed
