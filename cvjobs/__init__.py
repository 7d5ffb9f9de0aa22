"""Batch computer-vision jobs over large collections of images; here lives the Python interface.

Every command is also a function: ``cvjobs.embed("photos", "vectors", model="timm/resnet50")`` takes the options of
``cvjobs embed`` as keywords, writes the same output and returns the run's summary. What is wrong is an exception that
says what to do: ``cvjobs.CvjobsError`` is the base of all. ``cvjobs.open(out)`` opens an output as Arrow, pandas or a
Ray Dataset.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cvjobs.dataset.snapshot_reader import Dataset

_ERRORS = (
    "CvjobsError",
    "JobFailed",
    "LimitReached",
    "LimitSpent",
    "OutputHeld",
    "Stopped",
    "StoreUnreachable",
    "TooManyFailed",
    "WrongUse",
)


def open(out: str | PathLike[str], storage_options: Mapping[str, str] | None = None) -> Dataset:  # noqa: A001
    """Open an output's newest snapshot: its ``to_arrow()``, ``to_pandas()`` and ``to_ray()`` are one row per image.

    Args:
        out (str | os.PathLike[str]): The -o folder of `cvjobs embed`, `classify`, `detect` or `segment`, or its URL.
        storage_options (Mapping[str, str] | None): The settings of --storage-option, as in
            ``{"endpoint": "http://127.0.0.1:9000"}``. Default: None.

    Raises:
        WrongUse: There is no finished output.
        JobFailed: It is damaged, or its store fails.
    """
    from cvjobs.dataset.snapshot_reader import open_dataset

    return open_dataset(out, storage_options)


def __getattr__(name: str) -> Any:
    # Importing cvjobs costs nothing until a function is used: the command line answers --help in that time.
    if name in _ERRORS:
        from cvjobs.common import errors

        return getattr(errors, name)
    if name not in _commands():
        raise AttributeError(f"module 'cvjobs' has no attribute '{name}'")
    from cvjobs.config import commands

    return commands.function(name)


def __dir__() -> list[str]:
    return ["__doc__", "__version__", "open", *_ERRORS, *_commands()]


def _commands() -> list[str]:
    """Return the commands that are functions here: the names of the drivers' files, found without importing Typer."""
    from cvjobs.drivers import __path__ as folders

    return sorted(file.stem for folder in folders for file in Path(folder).glob("[!_]*.py"))


class _Package(ModuleType):
    """The package, whose documentation begins with its commands, read from their files when it is asked for."""

    @property
    def __doc__(self) -> str:
        from cvjobs.config import commands

        first, _, rest = (self.__dict__["__doc__"] or "").partition("\n\n")
        found = commands.described()
        width = max(map(len, found))
        lines = [f"    {name.ljust(width)}  {text.partition(chr(10))[0]}" for name, text in found.items()]
        return "\n".join([first, "", *lines, "", rest])


sys.modules[__name__].__class__ = _Package
