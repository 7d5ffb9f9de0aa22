"""Parquet files with a digest before their footer: every bit counts, and no reader minds."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cvjobs.dataset import parts, sealed, sealed_table
from cvjobs.dataset.sealed_table import UnreadableTable
from cvjobs.storage.local_store import LocalStore

ROWS = pa.table({"number": list(range(40)), "name": [f"image{number}" for number in range(40)]})


def test_every_reader_finds_the_rows(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    sealed_table.write(store, "rows.parquet", ROWS)
    assert sealed_table.read(store, "rows.parquet").equals(ROWS)
    assert sealed_table.check(store, "rows.parquet") == 40
    assert pq.read_table(tmp_path / "rows.parquet").equals(ROWS)
    assert pd.read_parquet(tmp_path / "rows.parquet")["number"].tolist() == list(range(40))
    sealed_table.write(store, "none.parquet", ROWS.slice(0, 0))
    assert sealed_table.check(store, "none.parquet") == 0


def test_a_stream_of_tables_is_sealed_and_the_record_of_its_file_is_right(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    written = parts.write_table(store, "rows.parquet", ROWS.schema, [ROWS, ROWS], seal=True)
    content = store.read("rows.parquet")
    assert (written.rows, written.bytes) == (80, len(content))
    assert sealed_table.is_whole(io.BytesIO(content)) is True
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == 80


def test_every_bit_counts_and_so_does_every_length(tmp_path: Path) -> None:
    sealed_table.write(LocalStore(tmp_path), "rows.parquet", ROWS)
    whole = (tmp_path / "rows.parquet").read_bytes()
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        assert sealed_table.is_whole(io.BytesIO(content)) is False, bit
    assert not any(sealed_table.is_whole(io.BytesIO(whole[:length])) for length in range(len(whole)))


def test_a_file_without_a_seal_is_read_as_it_is_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    pq.write_table(ROWS, tmp_path / "rows.parquet")
    assert sealed_table.read(store, "rows.parquet").equals(ROWS)
    for content in (b"", b"PAR1", (tmp_path / "rows.parquet").read_bytes()[:-3]):
        (tmp_path / "cut.parquet").write_bytes(content)
        with pytest.raises(UnreadableTable):
            sealed_table.read(store, "cut.parquet")
    with pytest.raises(UnreadableTable, match="it is gone"):
        sealed_table.check(store, "other.parquet")


def test_a_seal_whose_name_is_damaged_makes_no_older_record() -> None:
    whole = sealed.pack({"b": 1, "a": 2}, in_order=False)
    assert list(sealed.unpack(whole) or {}) == ["b", "a"]
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        assert sealed.unpack(bytes(content)) is None, bit
