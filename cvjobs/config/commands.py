"""Finds the drivers: the name of a command is the name of a file in ``jobs/``, and only the chosen one is imported.

A driver has a docstring (its help), a ``Config`` and ``call(config)``, which returns a record: ``str(record)`` is for
people, ``record.as_dict()`` for ``--json``, and ``record.exit_code`` is the command's where it has one. A driver that
shows more than that has ``run(config)`` as well, which prints and returns None or an exit code.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from cvjobs import drivers
from cvjobs.common import plugins
from cvjobs.common.errors import WrongUse, nearest
from cvjobs.common.formatting import visible_lines
from cvjobs.config import fields


def files() -> dict[str, Path]:
    """Return every driver's file by command name, in alphabetical order."""
    found = [file for folder in drivers.__path__ for file in Path(folder).glob("*.py")]
    return {file.stem: file for file in sorted(found) if not file.stem.startswith("_")}


def described() -> dict[str, str]:
    """Return every driver's docstring by command name, read without importing it; of one that is broken, why it is."""
    return {name: _docstring(file) for name, file in files().items()}


def _docstring(file: Path) -> str:
    try:
        return ast.get_docstring(ast.parse(file.read_bytes())) or ""
    except (SyntaxError, ValueError, OSError, RecursionError) as error:
        return f"Cannot be used: {file}{plugins.wrong(error, str(file))}."


def load(name: str) -> ModuleType:
    """Import and return one driver.

    Raises:
        WrongUse: there is none of that name.
        BrokenPlugin: its file cannot be imported, or lacks what a driver has.
    """
    known = files()
    if name not in known:
        raise WrongUse(f"There is no command '{name}'{nearest(name, known)}: see 'cvjobs --help'.")
    module, what = f"{drivers.__name__}.{name}", f"command {name}"
    driver: ModuleType = plugins.imported(module, what, ["Config"])
    with plugins.guarded(module, what):
        if not hasattr(driver, "call") and not hasattr(driver, "run"):
            raise TypeError("it has no call")
        fields.fields(driver.Config)
    return driver


def run(driver: ModuleType, given: Any) -> int:
    """Run a driver with its Config, print what it returns, with ``--json`` as JSON, and return the exit code."""
    if hasattr(driver, "run"):
        return driver.run(given) or 0
    record = driver.call(given)
    print(json.dumps(record.as_dict()) if getattr(given, "json", False) else visible_lines(str(record)))
    return getattr(record, "exit_code", 0)


def function(name: str) -> Callable[..., Any]:
    """Return the command as a Python function: positional arguments as ``fields.build`` takes them, options by name."""
    driver = load(name)

    def command(*arguments: Any, **options: Any) -> Any:
        work = driver.call if hasattr(driver, "call") else driver.run
        return work(fields.build(driver.Config, *arguments, **options))

    command.__name__ = command.__qualname__ = name
    command.__doc__ = driver.__doc__
    command.__signature__ = fields.python_signature(driver.Config)  # type: ignore[attr-defined]
    return command
