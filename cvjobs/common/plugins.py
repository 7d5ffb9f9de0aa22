"""Plugins: modules of a package, one of which is chosen by its name; only that one is imported."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

from cvjobs.common.errors import WrongUse, nearest


def names(package: str) -> list[str]:
    """Return the modules and packages in a package, sorted, without those whose names begin with an underscore."""
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return sorted(module.name for module in found if not module.name.startswith("_"))


def load(package: str, kind: str, name: str, choices: Sequence[str] | None = None) -> Any:
    """Import and return one module of a package; a Protocol beside the caller says what it offers.

    Args:
        package: the dotted name of the package.
        kind: what its modules are, in words, as in ``format``.
        name: the module's name.
        choices: the names that count, for a package that has other modules too; all of its modules without them.

    Raises:
        WrongUse: there is no such name.
    """
    known = names(package) if choices is None else choices
    if name not in known:
        raise WrongUse(f"There is no {kind} {name!r}{nearest(name, known)}: choose from {', '.join(known)}.")
    return importlib.import_module(f"{package}.{name}")
