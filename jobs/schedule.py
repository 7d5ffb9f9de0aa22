"""Print a file that starts a pipeline at given times: a crontab line, a systemd timer or a Kubernetes CronJob.

It installs nothing. Two nights of a pipeline never overlap.

For example `cvjobs schedule nightly.yaml --cron "0 2 * * *" --emit systemd`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from cvjobs.common.errors import WrongUse
from cvjobs.common.tabular import Readable


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs schedule``."""

    pipeline: Annotated[str, typer.Argument(help="The YAML file that `cvjobs run` takes.")]
    cron: Annotated[
        str,
        typer.Option(
            metavar="TIMES", help="The times: minute, hour, day, month and weekday, as in '0 2 * * *'; or @daily."
        ),
    ]
    emit: Annotated[
        Literal["cron", "systemd", "kubernetes"],
        typer.Option(help="The program that starts the nights.", rich_help_panel="Results"),
    ] = "cron"
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="The folder to write the files to.  [default: they are printed]",
            rich_help_panel="Results",
        ),
    ] = None
    image: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGE",
            help="The container image for --emit kubernetes.  [default: cvjobs:VERSION]",
            rich_help_panel="Cluster and storage",
        ),
    ] = None
    mount: Annotated[
        tuple[str, ...],
        typer.Option(
            "--mount",
            metavar="CLAIM=PATH",
            help="A volume claim for --emit kubernetes, and its folder in the pod; repeat the option for more.  "
            "[default: none]",
            rich_help_panel="Cluster and storage",
        ),
    ] = ()


class Files(dict[str, str], Readable):
    """The files' contents by name; as text the contents, or the places in the folder that the files were written to."""

    def __init__(self, contents: dict[str, str], folder: str | None) -> None:
        super().__init__(contents)
        self.folder = self.out = folder

    def as_dict(self) -> dict[str, str]:
        """Return the contents by name, as JSON types."""
        return dict(self)

    def __str__(self) -> str:
        if self.folder is not None:
            return "\n".join(f"{self.folder}/{name}" for name in self)
        if len(self) == 1:
            return "".join(self.values())
        return "\n".join(f"# {name}\n{content}" for name, content in self.items())


def call(config: Config) -> Files:
    """Return the files, which are written where ``out`` names a folder."""
    from cvjobs import __version__
    from cvjobs.operations import cron_expression, schedule_files
    from cvjobs.operations.nightly import pipeline_file

    mounts = [tuple(mount.split("=", 1)) for mount in config.mount]
    for mount in mounts:
        if len(mount) != 2 or not mount[0] or not mount[1].startswith("/"):
            raise WrongUse(f"--mount {'='.join(mount)} is none: write CLAIM=PATH, as in --mount photos=/data.")
    if config.emit != "kubernetes" and (config.image or mounts):
        raise WrongUse(f"--image and --mount are for --emit kubernetes: leave them out of --emit {config.emit}.")
    order = schedule_files.ScheduleSpec(
        pipeline=pipeline_file.read(config.pipeline),
        when=cron_expression.parse(config.cron),
        image=config.image or f"cvjobs:{__version__}",
        mounts=tuple((claim, path) for claim, path in mounts),
    )
    made = Files(schedule_files.files(config.emit, order), config.out)
    if config.out is not None:
        _write(made, Path(config.out))
    return made


def _write(made: Files, folder: Path) -> None:
    from cvjobs.common.errors import storage_failure
    from cvjobs.dataset import contents
    from cvjobs.storage.store import open_store

    store = open_store(str(folder))
    contents.check(store, contents.SCHEDULE)
    try:
        for name in made:
            if os.path.lexists(folder / name) and b"cvjobs" not in (folder / name).read_bytes():
                raise WrongUse(f"{folder / name} is of something else: choose another -o, or delete it.")
    except OSError as error:
        raise storage_failure(error, str(folder)) from error
    for name, content in made.items():  # each whole or not at all: what a full disk cuts short is nobody's
        store.write_bytes(name, content.encode())
