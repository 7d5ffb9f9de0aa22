"""Records that were read from JSON, as dataclasses: each value is of the kind that its field says, or it is refused."""

from __future__ import annotations

import math
import types
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

Made = TypeVar("Made")
_LARGEST = 1 << 63  # and more is no count of anything here


def made(kind: type[Made], values: Mapping[str, Any]) -> Made:
    """Return a dataclass with these values; raises TypeError where one is not of its field's kind."""
    hints = _hints(cast("Hashable", kind))
    for name, value in values.items():
        if name in hints and not fits(value, hints[name]):
            raise TypeError(f"{name} is not of its kind")
    return kind(**values)


def plain(name: str) -> str:
    """Return the name of a file below a folder; raises TypeError for one that could lead out of it."""
    if "\0" in name or any(piece in ("", ".", "..") for piece in name.split("/")):
        raise TypeError("no name of a file in a folder")
    return name


@cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(kind)


def fits(value: Any, kind: Any) -> bool:
    """Return whether a value is of the kind of an annotation: a plain type, a union, a tuple, a list or a dict."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inside)
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, inside[0]) and fits(v, inside[1]) for k, v in value.items())
    if origin in (tuple, list):
        return isinstance(value, origin) and all(fits(item, inside[0]) for item in value)
    if kind is float:
        return type(value) in (int, float) and abs(value) < _LARGEST and math.isfinite(value)
    if kind is int:
        return type(value) is int and abs(value) < _LARGEST
    return kind is Any or isinstance(value, kind)
