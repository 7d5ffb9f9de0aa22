"""What `pip install cvjobs` leaves out: the module that each extra installs, and the line that installs it.

And the sentence where a module is missing that it does bring.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from cvjobs.common.errors import WrongUse, limit

MODULES = {"maps": "captum.attr", "tensorboard": "tensorboardX"}
REINSTALL = "`pip install --force-reinstall cvjobs`"


def load(extra: str, purpose: str) -> ModuleType:
    """Return the module of an extra; ``purpose``, an option or a word for what is made, begins the error's sentence.

    Raises:
        WrongUse: the module cannot be imported.
    """
    module = MODULES[extra]
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
