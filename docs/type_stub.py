"""The stub of the Python interface: what `cvjobs/__init__.pyi` tells editors and type checkers of the commands."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cvjobs
from cvjobs.common import errors
from cvjobs.config import commands, python_function

STUB = Path(cvjobs.__file__).with_suffix(".pyi")
HEAD = '''\
# Made by docs/command_reference.py from the options of the commands.
"""Batch computer-vision jobs over large collections of images: every command is a function."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

'''


def stub() -> str:
    """Return the stub."""
    drivers = [commands.load(name) for name in commands.files()]
    imported = {line for driver in drivers for line in _imports(driver)}
    imported |= {f"from cvjobs.common.errors import {name} as {name}" for name in vars(errors) if _is_error(name)}
    imported.add("from cvjobs.dataset.snapshot_reader import Dataset")
    parts = ["\n".join([*sorted(imported), "", "__version__: str"])]
    parts += [text for driver in drivers for text in _records(driver)]
    parts.append(_function("open", inspect.signature(cvjobs.open), str(cvjobs.open.__doc__)))
    parts += map(_of, drivers)
    return HEAD + "\n\n".join(parts) + "\n"


def _is_error(name: str) -> bool:
    found = getattr(errors, name)
    return isinstance(found, type) and issubclass(found, errors.CvjobsError)


def _named(driver: ModuleType) -> set[str]:
    usual = str(python_function.signature(driver).return_annotation).partition(" | ")[0]
    return set(re.findall(r"\w+", usual))


def _body(driver: ModuleType) -> list[ast.stmt]:
    return ast.parse(inspect.getsource(driver)).body


def _imports(driver: ModuleType) -> Iterator[str]:
    """Yield the imports of what a driver returns."""
    blocks = [node.body for node in _body(driver) if isinstance(node, ast.If)]
    for node in (node for block in blocks for node in block if isinstance(node, ast.ImportFrom)):
        yield from (f"from {node.module} import {one.name}" for one in node.names if one.name in _named(driver))


def _records(driver: ModuleType) -> Iterator[str]:
    """Yield the records that a driver returns and that stand in its own file: their fields and methods."""
    for node in _body(driver):
        if isinstance(node, ast.ClassDef) and node.name in _named(driver):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    said = [one for one in inner.body[:1] if ast.get_docstring(inner)]
                    inner.body = [*said, ast.Expr(ast.Constant(...))]
            yield ast.unparse(node)


def _of(driver: ModuleType) -> str:
    """Return the function of a driver. What else than the first of its records a flag asks for is Any, as in typeshed.

    A checker then knows the usual record's fields, and lets those of the others pass.
    """
    signature = python_function.signature(driver)
    usual, _, others = str(signature.return_annotation).partition(" | ")
    kind = f"{usual} | Any" if others else usual
    name = driver.__name__.rpartition(".")[2]
    return _function(name, signature.replace(return_annotation=kind), python_function.docstring(driver))


def _function(name: str, signature: inspect.Signature, text: str) -> str:
    lines = [f"def {name}("]
    named = False
    for one in signature.parameters.values():
        if one.kind is inspect.Parameter.KEYWORD_ONLY and not named:
            named = True
            lines.append("    *,")
        hint = one.annotation if isinstance(one.annotation, str) else python_function.shown(one.annotation)
        default = "" if one.default is inspect.Parameter.empty else f" = {one.default!r}"
        lines.append(f"    {one.name}: {hint.replace('PathLike', 'os.PathLike').replace('os.os.', 'os.')}{default},")
    doc = textwrap.indent(inspect.cleandoc(text), " " * 4)
    return "\n".join([*lines, f") -> {signature.return_annotation}:", f'    """{doc.strip()}\n    """'])
