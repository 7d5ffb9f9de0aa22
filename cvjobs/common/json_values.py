"""Arrow's values as the plain ones that JSON and CSV know."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Plain = Callable[[Any], Any]


def rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table as JSON's values.

    A float32 is the shortest number that rounds to it, what is not finite is None, bytes are hexadecimal, a time is
    ISO 8601's text.
    """
    columns = [_values(column) for column in table.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(table.schema.names, values, strict=True))


def _values(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):  # Python's own has no nanoseconds
        column = pc.replace_substring(column.cast(pa.string()), " ", "T")
    plain = _plain(column.type)
    return [None if value is None else plain(value) for value in column.to_pylist()]


def _plain(kind: pa.DataType) -> Plain:
    """Return what makes a value of that type, which is not None, a plain one."""
    kinds: Any = pa.types
    if kinds.is_dictionary(kind):
        return _plain(kind.value_type)
    if kinds.is_struct(kind):
        inside = {field.name: _optional(_plain(field.type)) for field in kind}
        return lambda value: {name: plain(value[name]) for name, plain in inside.items()}
    if kinds.is_map(kind):
        return lambda value: {str(key): str(item) for key, item in value}
    if hasattr(kind, "value_type"):  # lists of every kind
        each = _optional(_plain(kind.value_type))
        return lambda value: [each(item) for item in value]
    return _scalar(kind)


def _scalar(kind: pa.DataType) -> Plain:
    kinds: Any = pa.types
    if kinds.is_floating(kind):
        return _float if kind == pa.float64() else _short
    if kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind):
        return bytes.hex
    known = kinds.is_integer(kind) or kinds.is_boolean(kind) or kinds.is_string(kind) or kinds.is_large_string(kind)
    return (lambda value: value) if known else str


def _optional(plain: Plain) -> Plain:
    return lambda value: None if value is None else plain(value)


def finite(value: Any) -> Any:
    """Return a JSON value without numbers that JSON does not know: None for what is not finite, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def _float(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _short(value: float) -> float | None:
    return _float(float(str(np.float32(value))))
