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
from typing import Any, Literal, overload

'''
# How the sentence about what is returned names the flag that asks for the second of two records.
_FLAG = re.compile(r"\(``(\w+)``\)")


def stub() -> str:
    """Return the stub."""
    drivers = [commands.load(name) for name in commands.files()]
    imported = {line for driver in drivers for line in _imports(driver)}
    imported |= {f"from cvjobs.common.errors import {name} as {name}" for name in vars(errors) if _is_error(name)}
    imported.add("from cvjobs.dataset.snapshot_reader import Dataset")
    parts = ["\n".join([*sorted(imported), "", "__version__: str"])]
    parts += [text for driver in drivers for text in _records(driver)]
    parts.append(_function("open", inspect.signature(cvjobs.open), str(cvjobs.open.__doc__)))
    parts += [text for driver in drivers for text in _functions(driver)]
    return HEAD + "\n\n".join(parts) + "\n"


def _is_error(name: str) -> bool:
    found = getattr(errors, name)
    return isinstance(found, type) and issubclass(found, errors.CvjobsError)


def _named(driver: ModuleType) -> set[str]:
    """Return the names in what a driver returns, and in the records of its own file among them."""
    returned = set(re.findall(r"\w+", str(python_function.signature(driver).return_annotation)))
    inner = {
        node.id for record in _classes(driver, returned) for node in ast.walk(record) if isinstance(node, ast.Name)
    }
    return returned | inner


def _classes(driver: ModuleType, names: set[str]) -> list[ast.ClassDef]:
    """Return the classes of these names in a driver's file: their fields and methods, without what those do."""
    found = [node for node in _body(driver) if isinstance(node, ast.ClassDef) and node.name in names]
    for method in (inner for node in found for inner in node.body if isinstance(inner, ast.FunctionDef)):
        said = method.body[:1] if ast.get_docstring(method) else []
        method.body = [*said, ast.Expr(ast.Constant(...))]
    return found


def _body(driver: ModuleType) -> list[ast.stmt]:
    return ast.parse(inspect.getsource(driver)).body


def _imports(driver: ModuleType) -> Iterator[str]:
    """Yield the imports of what a driver returns."""
    names = _named(driver)
    body = _body(driver)
    for node in [*body, *(inner for block in body if isinstance(block, ast.If) for inner in block.body)]:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            used = [one for one in node.names if (one.asname or one.name) in names]
            where = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
            if where not in ("from typing ", "from dataclasses "):
                yield from (f"{where}import {ast.unparse(one)}" for one in used)


def _records(driver: ModuleType) -> Iterator[str]:
    """Yield the records that a driver returns and that stand in its own file."""
    yield from map(ast.unparse, _classes(driver, _named(driver)))


def _functions(driver: ModuleType) -> Iterator[str]:
    """Yield the function of a driver, and before it the overload for a flag that asks for another record.

    What else than the first of its records it may return is Any, as in typeshed: a checker then knows the usual one's
    fields.
    """
    signature, text = python_function.signature(driver), python_function.docstring(driver)
    usual, _, other = str(signature.return_annotation).partition(" | ")
    name = driver.__name__.rpartition(".")[2]
    found = _FLAG.search(python_function.work(driver).__doc__ or "")
    if found and other and found[1] in signature.parameters:
        asked = signature.parameters[found[1]].replace(annotation="Literal[True]", default=inspect.Parameter.empty)
        changed = [asked if one.name == asked.name else one for one in signature.parameters.values()]
        yield f"@overload\n{_function(name, inspect.Signature(changed, return_annotation=other), text)}"
        name = f"@overload\n{name}"
    kind = f"{usual} | Any" if other else usual
    yield _function(name, signature.replace(return_annotation=kind), text)


def _function(name: str, signature: inspect.Signature, text: str) -> str:
    before, _, name = name.rpartition("\n")
    lines = [*filter(None, [before]), f"def {name}("]
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
