"""The carried columns of a list as one 64-bit hash a row, so that a changed value gives a new version."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cvjobs.sources.rows import mix, text_hash

Hashes = npt.NDArray[np.uint64]

_NULL = np.uint64(0x6E756C6C)
_UNSIGNED = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}


def carried_hash(columns: pa.RecordBatch) -> Hashes:
    """Return a hash (n,) of each row: of names and values, whatever the order of the columns.

    Raises TypeError, with the column's name first, for a type that has no fixed meaning as bytes.
    """
    total = np.zeros(columns.num_rows, np.uint64)
    for name, column in zip(columns.schema.names, columns.columns, strict=True):
        try:
            total += mix(_hash(column) ^ text_hash(name.encode()))
        except TypeError as error:
            raise TypeError(f"{name} ({error})") from None
    return total


def is_text(kind: pa.DataType) -> bool:
    """Whether a type holds strings or bytes."""
    types = pa.types
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    return any(test(kind) for test in (*tests, types.is_binary_view, types.is_fixed_size_binary))


def _hash(column: pa.Array) -> Hashes:
    kind = column.type
    if isinstance(column, pa.ExtensionArray):
        return _hash(column.storage)
    if pa.types.is_dictionary(kind):
        return _hash(column.dictionary_decode())
    if pa.types.is_null(kind):
        return np.full(len(column), _NULL)
    if pa.types.is_boolean(kind):
        values = _hash(column.cast(pa.uint8()))
    elif pa.types.is_primitive(kind) and kind.bit_width in _UNSIGNED:
        plain = column.view(_UNSIGNED[kind.bit_width]).fill_null(0)
        values = mix(plain.to_numpy(zero_copy_only=False).astype(np.uint64))
    elif pa.types.is_decimal(kind):
        values = _hash(column.cast(pa.string()))
    elif is_text(kind):
        texts = column.cast(pa.large_binary()).fill_null(b"").to_pylist()
        values = np.fromiter(map(text_hash, texts), np.uint64, len(texts))
    elif pa.types.is_fixed_size_list(kind):
        values = _hash(column.cast(pa.list_(kind.value_type)))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        values = _list_hash(column)
    elif pa.types.is_map(kind):
        values = _hash(column.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))))
    elif pa.types.is_struct(kind):
        values = carried_hash(pa.RecordBatch.from_arrays(column.flatten(), names=[field.name for field in kind]))
    else:
        raise TypeError(str(kind))
    return np.where(column.is_null().to_numpy(zero_copy_only=False), _NULL, values)


def _list_hash(column: pa.Array) -> Hashes:
    """Sum the items of each list, each mixed with its place in the list, and mix in the length."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    first, lengths = offsets[:-1], np.diff(offsets)
    items = _hash(column.values.slice(offsets[0], offsets[-1] - offsets[0]))
    place = np.arange(len(items), dtype=np.int64) - np.repeat(first - offsets[0], lengths)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mix(items ^ mix(place.astype(np.uint64))))])
    bounds = offsets - offsets[0]
    return mix((sums[bounds[1:]] - sums[bounds[:-1]]) ^ lengths.astype(np.uint64))
