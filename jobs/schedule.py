"""Print a file that starts a pipeline at given times: a crontab line, a systemd timer or a Kubernetes CronJob.

Nothing is installed. Two nights never overlap, whatever starts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs schedule``."""

    pipeline: Annotated[str, typer.Argument(help="The YAML file that `cvjobs run` takes.")]
    cron: Annotated[
        str, typer.Option(metavar="TIMES", help="Minute, hour, day, month, weekday, as in '0 2 * * *'; or @daily.")
    ]
    emit: Annotated[Literal["cron", "systemd", "kubernetes"], typer.Option(help="What starts the nights.")] = "cron"
    out: Annotated[str | None, typer.Option("-o", "--out", help="Write into this folder instead of printing.")] = None
    image: Annotated[str | None, typer.Option(help="Kubernetes: the container image.  [default: cvjobs:VERSION]")] = (
        None
    )
    mount: Annotated[
        tuple[str, ...],
        typer.Option("--mount", metavar="CLAIM=PATH", help="Kubernetes: a volume claim, and where the pod has it."),
    ] = ()


def run(config: Config) -> None:
    """Print the files, or write them and print their names."""
    from pathlib import Path

    from cvjobs.errors import storage_failure

    made = call(config)
    if config.out is None:
        print(
            "\n".join(f"# {name}\n{content}" for name, content in made.items()) if len(made) > 1 else made.popitem()[1]
        )
        return
    folder = Path(config.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in made.items():
            (folder / name).write_text(content)
            print(folder / name)
    except OSError as error:
        raise storage_failure(error, config.out) from error


def call(config: Config) -> dict[str, str]:
    """Return the files by their names."""
    from cvjobs import __version__, schedules
    from cvjobs.errors import WrongUse
    from cvjobs.pipeline import plan
    from cvjobs.schedules import expression

    mounts = [tuple(mount.split("=", 1)) for mount in config.mount]
    for mount in mounts:
        if len(mount) != 2 or not mount[0] or not mount[1].startswith("/"):
            raise WrongUse(f"--mount {'='.join(mount)} is none: write CLAIM=PATH, as in --mount photos=/data.")
    if config.emit != "kubernetes" and (config.image or mounts):
        raise WrongUse(f"--image and --mount are for --emit kubernetes: leave them out of --emit {config.emit}.")
    order = schedules.Order(
        pipeline=plan.read(config.pipeline),
        when=expression.parse(config.cron),
        image=config.image or f"cvjobs:{__version__}",
        mounts=tuple((claim, path) for claim, path in mounts),
    )
    return schedules.files(config.emit, order)
