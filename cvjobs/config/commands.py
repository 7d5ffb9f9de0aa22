"""Finds the drivers: the name of a command is the name of a file in ``jobs/``, and only the chosen one is imported.

A driver has a docstring (its help), a ``Config`` and ``call(config)``, which returns a record: ``str(record)`` is for
people, ``record.as_dict()`` for ``--json``, and ``record.exit_code`` is the command's where it has one. A driver that
shows more than that has ``run(config)`` as well, which prints and returns None or an exit code.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from cvjobs import drivers
from cvjobs.common import plugins
from cvjobs.common.errors import JobFailed, WrongUse, explained, limit, nearest
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
    left = next(filter(None, (getattr(record, name, "") for name in ("to", "out", "report"))), "")
    with printing("" if getattr(given, "dry_run", False) else left):
        print(_json(record) if getattr(given, "json", False) else visible_lines(str(record)))
    return getattr(record, "exit_code", 0)


def _json(record: Any) -> str:
    from cvjobs.common import json_values  # imports Arrow, which --help and a list of models do without

    return json.dumps(json_values.finite(record.as_dict()))


CLOSED = "Standard output {}: give one that can be written to, then run the same command again."


class Unprinted(JobFailed):
    """What a command is there to print could not be printed."""


@contextlib.contextmanager
def printing(left: str = "") -> Iterator[None]:
    """Print in here; where that fails and the command ``left`` something in a place, it has done its work all the same.

    Raises:
        Unprinted: the print was all there is, and standard output is full, closed or broken.
        BrokenPipeError: the print was all there is, and its reader wanted no more.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        early = isinstance(error, BrokenPipeError)
        if early and not left:
            raise
        discard()
        why = "is closed" if error.errno == errno.EBADF else f"failed ({error.strerror})"
        if left:
            if not early:
                print(f"cvjobs: standard output {why}: what was made is in {left}.", file=sys.stderr)
        else:
            raise Unprinted(str(limit(error) or CLOSED.format(why))) from error


def discard() -> None:
    """Let standard output lead nowhere: what is still buffered would fail again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


@functools.cache
def function(name: str) -> Callable[..., Any]:
    """Return the command as a Python function: positional arguments as ``fields.build`` takes them, options by name."""
    from cvjobs.config import python_function  # which no command line needs

    driver = load(name)
    work = python_function.work(driver)

    def command(*arguments: Any, **options: Any) -> Any:
        given = fields.build(driver.Config, *arguments, **options)
        try:
            return work(given)
        except Exception as error:
            if (known := explained(error)) is None or known is error:
                raise
            raise known from error

    command.__module__ = "cvjobs"
    command.__name__ = command.__qualname__ = name
    command.__doc__ = python_function.docstring(driver)
    command.__signature__ = python_function.signature(driver)  # type: ignore[attr-defined]
    return command
