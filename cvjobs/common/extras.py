"""What `pip install cvjobs` leaves out: the module that each extra installs, and the line that installs it."""

from __future__ import annotations

import importlib
from types import ModuleType

from cvjobs.common.errors import WrongUse

MODULES = {"maps": "captum.attr", "tensorboard": "tensorboardX"}


def load(extra: str, purpose: str) -> ModuleType:
    """Return the module of an extra; ``purpose``, an option or a word for what is made, begins the error's sentence.

    Raises:
        WrongUse: the module cannot be imported.
    """
    module = MODULES[extra]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise WrongUse(f"{purpose} needs {package}: pip install 'cvjobs[{extra}]'.") from error
