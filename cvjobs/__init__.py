"""Batch computer-vision jobs over large collections of images; here lives the Python interface.

Every command is also a function: ``cvjobs.embed("photos", "vectors", model="timm/resnet50")`` takes the options of
``cvjobs embed`` as keywords, writes the same output and returns the run's summary. ``cvjobs.open(out)`` opens an
output as Arrow, pandas or a Ray Dataset.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cvjobs.dataset.snapshot_reader import open_dataset

    open = open_dataset  # noqa: A001 - used as cvjobs.open


def __getattr__(name: str) -> Callable[..., Any]:
    # Python asks here before it imports a submodule. A library module keeps its name: such a command is no function.
    if name.startswith("_") or find_spec(f"{__name__}.{name}") is not None:
        raise AttributeError(f"module 'cvjobs' has no attribute '{name}'")
    # Importing cvjobs costs nothing until a function is used: the command line answers --help in that time.
    if name == "open":
        from cvjobs.dataset.snapshot_reader import open_dataset

        return open_dataset
    from cvjobs import drivers

    if name not in drivers.files():
        raise AttributeError(f"module 'cvjobs' has no attribute '{name}'")
    return drivers.function(name)


def __dir__() -> list[str]:
    from cvjobs import drivers

    commands = [name for name in drivers.files() if find_spec(f"{__name__}.{name}") is None]
    return ["__doc__", "__version__", "open", *commands]
