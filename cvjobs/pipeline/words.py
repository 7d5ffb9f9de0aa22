"""A command's options as the words of its command line: the inverse of what the command line parses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cvjobs.config import Field, fields


def words(command: str, config: type, values: Mapping[str, Any]) -> list[str]:
    """Return the argv, without ``cvjobs``, that gives a command these checked values; what is None is left out."""
    known = fields(config)
    given = [(known[name], value) for name, value in values.items() if value is not None]
    positional = [str(values[f.name]) for f in known.values() if f.positional and values.get(f.name) is not None]
    options = [word for field, value in given if not field.positional for word in _option(field, value)]
    if any(value.startswith("-") for value in positional):
        return [command, *options, "--", *positional]
    return [command, *positional, *options]


def _option(field: Field, value: Any) -> list[str]:
    spelling = field.spelt.rpartition("/")[2]
    if field.kind is bool:
        return [spelling] * value
    return [word for entry in (value if field.many else [value]) for word in (spelling, str(entry))]
