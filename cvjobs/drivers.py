"""Finds the drivers: the name of a command is the name of a file in ``jobs/``, and only the chosen one is imported.

A driver has a docstring (its help), a ``Config``, ``run(config)`` that returns None or an exit code and, where Python
callers get more than that, ``call(config)``.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from cvjobs import config, jobs
from cvjobs.errors import WrongUse, nearest


def files() -> dict[str, Path]:
    """Return every driver's file by command name, in alphabetical order."""
    found = [file for folder in jobs.__path__ for file in Path(folder).glob("*.py")]
    return {file.stem: file for file in sorted(found) if not file.stem.startswith("_")}


def described() -> dict[str, str]:
    """Return every driver's docstring by command name, read without importing it."""
    return {name: ast.get_docstring(ast.parse(file.read_bytes())) or "" for name, file in files().items()}


def load(name: str) -> ModuleType:
    """Import and return one driver; raise ``WrongUse`` with the nearest names where there is none."""
    known = files()
    if name not in known:
        raise WrongUse(f"There is no command '{name}'{nearest(name, known)}: see 'cvjobs --help'.")
    return importlib.import_module(f"{jobs.__name__}.{name}")


def function(name: str) -> Callable[..., Any]:
    """Return the command as a Python function: positional arguments as ``config.build`` takes them, options by name."""
    driver = load(name)

    def command(*arguments: Any, **options: Any) -> Any:
        return getattr(driver, "call", driver.run)(config.build(driver.Config, *arguments, **options))

    command.__name__ = command.__qualname__ = name
    command.__doc__ = driver.__doc__
    command.__signature__ = config.python_signature(driver.Config)  # type: ignore[attr-defined]
    return command
