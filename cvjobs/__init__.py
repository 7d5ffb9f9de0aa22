"""Batch computer-vision jobs over large collections of images; here lives the Python interface.

Every command is also a function: ``cvjobs.embed("photos", "vectors", model="timm/resnet50")`` takes the options of
``cvjobs embed`` as keywords, writes the same output and returns the run's summary. ``cvjobs.open(out)`` opens an
output as Arrow, pandas or a Ray Dataset.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cvjobs.dataset.snapshot_reader import open_dataset

    open = open_dataset  # noqa: A001 - used as cvjobs.open


def __getattr__(name: str) -> Callable[..., Any]:
    # Importing cvjobs costs nothing until a function is used: the command line answers --help in that time.
    if name == "open":
        from cvjobs.dataset.snapshot_reader import open_dataset

        return open_dataset
    if name not in _commands():
        raise AttributeError(f"module 'cvjobs' has no attribute '{name}'")
    from cvjobs.config import commands

    return commands.function(name)


def __dir__() -> list[str]:
    return ["__doc__", "__version__", "open", *_commands()]


def _commands() -> list[str]:
    """Return the commands that are functions here: the names of the drivers' files, found without importing Typer."""
    from cvjobs.drivers import __path__ as folders

    return sorted(file.stem for folder in folders for file in Path(folder).glob("[!_]*.py"))
