"""Plugins: modules of a package, one of which is chosen by its name; only that one is imported.

A file that cannot be used is one sentence that names it, and no matter of the other files.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import pkgutil
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from cvjobs.common import extras
from cvjobs.common.errors import CvjobsError, JobFailed, WrongUse, limit, nearest


class BrokenPlugin(JobFailed):
    """A plugin's file cannot be used; the sentence names the file and what is wrong with it."""


def names(package: str) -> list[str]:
    """Return the modules and packages in a package, sorted, without those whose names begin with an underscore."""
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return sorted(module.name for module in found if not module.name.startswith("_"))


def load(package: str, kind: str, name: str, choices: Sequence[str] | None = None, needs: Sequence[str] = ()) -> Any:
    """Import and return one module of a package; a Protocol beside the caller says what it offers.

    Args:
        package: the dotted name of the package.
        kind: what its modules are, in words, as in ``format``.
        name: the module's name.
        choices: the names that count, for a package that has other modules too; all of its modules without them.
        needs: what every module of the package has.

    Raises:
        WrongUse: there is no such name.
        BrokenPlugin: the module cannot be imported, or lacks what it needs.
    """
    known = names(package) if choices is None else choices
    if name not in known:
        raise WrongUse(f"There is no {kind} {name!r}{nearest(name, known)}: choose from {', '.join(known)}.")
    return imported(f"{package}.{name}", f"{kind} {name}", needs)


def imported(module: str, what: str, needs: Sequence[str] = ()) -> Any:
    """Import and return a module by its dotted name; ``what`` it is stands in the sentence of ``BrokenPlugin``."""
    with guarded(module, what):
        plugin = importlib.import_module(module)
        if missing := [name for name in needs if not hasattr(plugin, name)]:
            raise TypeError(f"it has no {' and no '.join(missing)}")
        return plugin


@contextlib.contextmanager
def guarded(module: str, what: str) -> Iterator[None]:
    """Turn what a plugin's own code raises into ``BrokenPlugin``; ``module`` is its dotted name."""
    try:
        yield
    except CvjobsError:
        raise
    except Exception as error:  # a plugin is anyone's code
        if limit(error):  # of the machine, which is no fault of the file's
            raise
        file = _file(module)
        raise BrokenPlugin(f"The {what} cannot be used: {file}{wrong(error, file)}.") from error


def wrong(error: Exception, file: str) -> str:
    """Return what is wrong with a file as the end of a sentence that begins with it: its line, why, and the remedy."""
    own = isinstance(error, SyntaxError) and error.filename in (None, "<unknown>", file)
    lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == file]
    line = error.lineno if isinstance(error, SyntaxError) and own else lines[-1] if lines else None
    place = f", line {line}" if line else ""
    why = " ".join((error.msg if isinstance(error, SyntaxError) and own else str(error)).split())
    package = extras.absent(error)
    if package:
        return f"{place}, needs {package} ({why}): install that, or all of cvjobs with {extras.REINSTALL}"
    kind = "" if why and (own or isinstance(error, TypeError)) else type(error).__name__
    return f"{place} ({': '.join(filter(None, (kind, why)))}): correct or remove the file"


def _file(module: str) -> str:
    """Return the file of a module, without importing it."""
    spec = importlib.util.find_spec(module)
    return spec.origin if spec and spec.origin else module
