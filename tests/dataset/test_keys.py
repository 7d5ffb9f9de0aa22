"""Which row belongs to which id, and rows of tables whose text is more than Arrow joins."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from cvjobs.dataset.keys import distinct, positions, rows_at

WIDE = 100_000  # bytes of a path


def ids(*rows: tuple[int, int]) -> pa.Array:
    """Return ids made of two halves."""
    return pa.array([np.array(row, np.uint64).tobytes() for row in rows], pa.binary(16))


def wide(chunks: int = 22, rows: int = 1_000) -> pa.Table:
    """Return a table whose paths take 2.2 GB in all, each chunk the same memory."""
    ends = pa.py_buffer(np.arange(rows + 1, dtype=np.int32) * WIDE)
    path = pa.StringArray.from_buffers(rows, ends, pa.py_buffer(bytes(WIDE * rows)))
    return pa.table({"path": pa.chunked_array([path] * chunks), "row": np.arange(chunks * rows)})


def test_ids_are_found_by_both_halves_and_the_first_counts() -> None:
    among = ids((7, 1), (7, 2), (3, 9), (7, 1), (7, 3), (3, 9))
    asked = ids((7, 3), (3, 9), (7, 1), (8, 1), (7, 9), (0, 0), (7, 2))
    assert positions(asked, among).tolist() == [4, 2, 0, -1, -1, -1, 1]
    assert positions(asked.slice(1, 3), among.slice(2)).tolist() == [0, 1, -1]
    assert positions(asked, among.slice(0, 0)).tolist() == [-1] * 7
    assert positions(asked.slice(0, 0), among).tolist() == []


def test_many_ids_are_found_as_a_dictionary_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvjobs.dataset.keys.BLOCK", 1_000)
    numbers = np.random.default_rng(0).integers(0, 60, (9_000, 2))
    all_ids = ids(*map(tuple, numbers.tolist()))
    among, asked = all_ids.slice(0, 2_000), all_ids.slice(2_000)
    first: dict[bytes, int] = {}
    for at, one in enumerate(among.to_pylist()):
        first.setdefault(one, at)
    assert positions(asked, among).tolist() == [first.get(one, -1) for one in asked.to_pylist()]
    assert sorted(distinct(among).to_pylist()) == sorted(first)


def test_rows_of_a_table_with_more_than_two_gibibytes_of_text() -> None:
    table = wide()
    with pytest.raises(pa.ArrowInvalid, match="overflow"):
        table.take(pa.array([1]))
    at = np.array([21_999, 3, 5_000, 3])
    assert rows_at(table, at)["row"].to_pylist() == at.tolist()
    assert rows_at(table, at[:0]).num_rows == 0
    assert rows_at(table, np.arange(len(table))) is table
