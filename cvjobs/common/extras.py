"""What `pip install cvjobs` leaves out: the module that each extra installs, and the line that installs it.

And the sentences where a module that it does bring is missing, or a file of the same name is in its way.
"""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import traceback
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from cvjobs.common.errors import WrongUse, limit

MODULES = {"hf": "transformers", "maps": "captum.attr", "onnx": "onnxruntime", "tensorboard": "tensorboardX"}
# What a file of the same name in a working folder most likely stands in the way of, beside what Python brings.
PACKAGES = (
    *("PIL", "faiss", "fsspec", "jinja2", "numpy", "psutil", "pyarrow", "ray", "rich", "safetensors", "timm", "torch"),
    *("torchcodec", "torchvision", "typer", "xxhash", "yaml"),
)
REINSTALL = "`pip install --force-reinstall cvjobs`"


def load(extra: str, purpose: str, other: str = "") -> ModuleType:
    """Return the module of an extra, or an ``other`` that it brings, too.

    ``purpose``, an option or a word for what is made, begins the error's sentence.

    Raises:
        WrongUse: the module cannot be imported.
    """
    module = other or MODULES[extra]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if limit(error):
            raise
        package = module.partition(".")[0]
        raise WrongUse(f"{purpose} needs {package}: pip install 'cvjobs[{extra}]'.") from error


def absent(error: Exception) -> str:
    """Return the package that an error says cannot be imported; empty for our own modules and any other error."""
    if not isinstance(error, ImportError):
        return ""
    package = (error.name or "a module").partition(".")[0]
    return "" if package == "cvjobs" else package


def lacking(error: Exception) -> str:
    """Return the sentence about a package that cannot be imported, empty where that is not what is wrong."""
    package = absent(error)
    why = " ".join(str(error).split())
    return package and f"The installation lacks {package} ({why}): reinstall with {REINSTALL}."


def shadowed(error: Exception) -> str:
    """Return the sentence about a file that Python takes for a module that we need, empty where none is in the way.

    The folders of PYTHONPATH, and with ``python -m`` the working folder, come before what is installed.
    """
    named = dict.fromkeys((*os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path[:1]))
    folders = [folder for folder in named if folder and not _installed(Path(folder))]
    ran = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
    for name in sorted({*sys.stdlib_module_names, *PACKAGES}) if folders else ():
        found = PathFinder.find_spec(name, folders)
        origin = None if found is None else found.origin
        if origin and (origin in ran or getattr(sys.modules.get(name), "__file__", None) == origin):
            what = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
            return (
                f"{origin} is taken for the module {name} ({what}): rename it, or leave its folder out of PYTHONPATH "
                "and work in another one."
            )
    return ""


def _installed(folder: Path) -> bool:
    """Whether a folder is one of Python's own, ours, or one that packages were installed into."""
    own = (*sysconfig.get_paths().values(), str(Path(__file__).parents[2]))
    return any(folder.resolve() == Path(one).resolve() for one in own) or bool(list(folder.glob("*-info")))
