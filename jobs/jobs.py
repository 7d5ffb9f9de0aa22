"""List, follow and stop the jobs of a cluster: `cvjobs jobs list`, `status ID`, `logs ID`, `wait ID`, `stop ID`.

`wait` shows the job's log from its beginning and ends with the job's own exit code. `stop` lets the job publish what it
has done; after 20 s it is killed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cvjobs.common.errors import WrongUse
from cvjobs.config.fields import REQUIRED
from cvjobs.config.options import Json

if TYPE_CHECKING:
    from cvjobs.clusters.jobs_api.server import ClusterJob, Server


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs jobs``."""

    action: Annotated[
        Literal["list", "status", "logs", "wait", "stop"],
        typer.Argument(
            help="The action: list all jobs; or show, print the log of, follow or stop one job.",
            rich_help_panel=REQUIRED,
        ),
    ] = "list"
    id: Annotated[
        str | None,
        typer.Argument(help="The id of the job; only list needs none.  [default: none]", rich_help_panel=REQUIRED),
    ] = None
    address: Annotated[
        str,
        typer.Option(
            envvar="RAY_ADDRESS",
            metavar="ADDRESS",
            help="The cluster, as http://HOST:8265.",
            rich_help_panel="Cluster and storage",
        ),
    ] = "http://127.0.0.1:8265"
    json: Json = False


def run(config: Config) -> int:
    """Do it, print the answer and return the exit code: for ``wait`` that of the job."""
    import json

    from cvjobs.clusters.jobs_api import follow, job_lines
    from cvjobs.common.formatting import visible_lines

    if config.action == "wait":
        return follow.follow(_server(config), _id(config))
    if config.action == "logs":
        follow.show(_server(config), _id(config))
        return 0
    found = call(config)
    if config.json:
        print(json.dumps([job.as_dict() for job in found] if isinstance(found, list) else found.as_dict()))
    else:
        print(visible_lines(job_lines.text(found if isinstance(found, list) else [found])))
    return 0


def call(config: Config) -> list[ClusterJob] | ClusterJob:
    """Do it and return the jobs of the cluster, or the one asked for."""
    from cvjobs.clusters.jobs_api import follow, stop

    server = _server(config)
    if config.action == "list":
        return server.jobs()
    if config.action == "stop":
        return stop.stop(server, _id(config))
    if config.action == "wait":
        follow.follow(server, _id(config))
    return follow.known(server, _id(config))


def _server(config: Config) -> Server:
    from cvjobs.clusters.jobs_api.server import Server
    from cvjobs.config.options import is_cluster

    if not is_cluster(config.address):
        raise WrongUse(f"--address {config.address} has no jobs: give http://HOST:8265.")
    server = Server(config.address)
    server.greet()
    return server


def _id(config: Config) -> str:
    if not config.id:
        raise WrongUse(f"ID is missing: give a job's id, as in 'cvjobs jobs {config.action} ID'.")
    return config.id
