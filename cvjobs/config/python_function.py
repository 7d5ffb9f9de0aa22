"""A command as a Python function: its signature, and a docstring that says of each parameter what ``--help`` says."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import shlex
import textwrap
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

from cvjobs.common.errors import WrongUse
from cvjobs.config.fields import HOMED, Field, fields, from_text, python_order

DEFAULT = re.compile(r"\s*\[default: (.+?)\]$")
_EXAMPLE = re.compile(r"(?<=For example )`cvjobs ([^`]+)`")
_WIDTH = 100
_RAISES = """\
Raises:
    WrongUse: An option, a name or a source is wrong; nothing was changed.
    JobFailed: The job could not go on; the same call continues it.
    CvjobsError: The base of these and of the others, each one sentence that says what to do."""


def signature(driver: ModuleType) -> inspect.Signature:
    """Return the parameters of a driver's function, as ``fields.build`` takes them, and what it returns."""
    known = fields(driver.Config)
    order = python_order(known)
    placed = [_parameter(known[name], inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in order]
    named = [_parameter(field, inspect.Parameter.KEYWORD_ONLY) for field in known.values() if field.name not in order]
    return inspect.Signature([*placed, *named], return_annotation=_kind(driver))


def _kind(driver: ModuleType) -> Any:
    return work(driver).__annotations__.get("return", "Any")


def work(driver: ModuleType) -> Callable[[Any], Any]:
    """Return what the function of a driver calls with its Config."""
    found: Callable[[Any], Any] = driver.call if hasattr(driver, "call") else driver.run
    return found


def _parameter(field: Field, kind: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.required else field.default
    return inspect.Parameter(field.name, kind, default=default, annotation=annotation(field))


def annotation(field: Field) -> Any:
    """Return the type of a parameter: a path may be a ``Path``, and a tuple a list."""
    if field.many:
        return list[field.kind] | field.annotation  # type: ignore[name-defined]
    if field.kind is str and (field.place or field.name in HOMED):
        return str | os.PathLike[str] | None if field.optional else str | os.PathLike[str]
    return field.annotation


def shown(kind: Any) -> str:
    """Return a type as a person writes it."""
    if isinstance(kind, type) and not get_args(kind):
        return "None" if kind is type(None) else kind.__name__
    if get_origin(kind) is Literal:
        return f"Literal[{', '.join(map(repr, get_args(kind)))}]"
    if get_origin(kind) in (list, tuple, os.PathLike):
        inner = ", ".join("..." if one is Ellipsis else shown(one) for one in get_args(kind))
        return f"{'os.PathLike' if get_origin(kind) is os.PathLike else get_origin(kind).__name__}[{inner}]"
    return " | ".join(map(shown, get_args(kind))) or str(kind)


def docstring(driver: ModuleType) -> str:
    """Return what ``help()`` says of a driver's function: its text, each parameter, what is returned and raised."""
    known = fields(driver.Config)
    order = python_order(known)
    every = [*(known[name] for name in order), *(field for field in known.values() if field.name not in order)]
    parts = [_EXAMPLE.sub(lambda found: _example(found[0], found[1], known), inspect.cleandoc(driver.__doc__ or ""))]
    if every:
        parts.append("\n".join(["Args:", *(line for field in every for line in _sentence(field))]))
    if text := _returned(driver):
        parts.append("\n".join(["Returns:", *_wrapped(text)]))
    return "\n\n".join([*parts, _RAISES]) + "\n"


def _example(line: str, words: str, known: Mapping[str, Field]) -> str:
    """Return the call that does what a command line does; the line itself where it is more than options and values."""
    with contextlib.suppress(LookupError, ValueError, WrongUse):
        return f"`{_call(words, known)}`"
    return line


def _call(line: str, known: Mapping[str, Field]) -> str:
    name, *words = shlex.split(line)
    places = [field for field in known.values() if field.positional]
    spelt = {one: field for field in known.values() if not field.positional for one in field.spelt.split("/")}
    given: dict[str, Any] = {}
    while words:
        word = words.pop(0)
        field = spelt.get(word) or places.pop(0)
        text = word if field.positional else "true" if field.kind is bool else words.pop(0)
        given[field.name] = from_text(field, text, field.spelt)
    order = [one for one in python_order(known) if one in given]
    shown_values = [f'"{given.pop(one)}"' for one in order if isinstance(given[one], str)]
    shown_values += [f"{one}={json.dumps(value) if isinstance(value, str) else value}" for one, value in given.items()]
    return f"cvjobs.{name}({', '.join(shown_values)})"


def _sentence(field: Field) -> Iterator[str]:
    """Yield the lines about a parameter: its name, type and sentence, and its default with what that means."""
    text = field.info.help or ""
    meaning = DEFAULT.search(text)
    text = text[: meaning.start()] if meaning else text
    text += " It is for the command line: a function prints nothing." * (field.name == "json")
    if not field.required:
        means = f" ({meaning[1]})" if meaning and meaning[1] != "none" else ""
        text = f"{text} Default: {field.default!r}{means}."
    yield from _wrapped(f"{field.name} ({shown(annotation(field))}): {text}")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=" " * 4,
        subsequent_indent=" " * 8,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _returned(driver: ModuleType) -> str:
    """Return the type of what is returned, and what the driver's own function says of it."""
    found = work(driver)
    words = " ".join(inspect.cleandoc(found.__doc__ or "").split())
    said = re.search(r"\breturn (.+)", words, re.IGNORECASE)
    return f"{_kind(driver)}: {said[1] if said else words}".removesuffix(": ")
