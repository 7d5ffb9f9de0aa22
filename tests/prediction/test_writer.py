"""The writer: rows become parts, and a row that does not fit into its columns is a failure of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvjobs.dataset import parts, schema
from cvjobs.dataset.parts import Author
from cvjobs.images.decode_worker import Measured
from cvjobs.prediction.engine.writer import Shard, Writer
from cvjobs.sources.rows import path_columns, stat_columns
from cvjobs.storage.local_store import LocalStore

RESULTS = pa.schema([pa.field("value", pa.int32())])
COLUMNS = schema.result_schema(pa.schema([pa.field("note", pa.string())]), RESULTS)
GOOD = Measured(width=3, height=2, frames=1, content_hash=b"x" * 16)


def shard(count: int) -> Shard:
    """Some key rows with a column of a list's own."""
    path, ids = path_columns([b"%d.png" % number for number in range(count)])
    size, modified, version = stat_columns([5] * count, [7] * count)
    columns = [path, ids, size, modified, pa.array(version), pa.array(["n"] * count)]
    return Shard(pa.table(columns, schema=pa.schema([*schema.KEYS, pa.field("note", pa.string())])))


def _nothing() -> None:
    """Refuse no commit."""


def written(measured: list[Measured], arrays: list[pa.Array], batch: int = 100) -> dict[str, Any]:
    """Write rows in batches and return the value or the code of each by path; every one is durable afterwards."""
    broken: list[BaseException] = []
    of = shard(len(measured))
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder), "r000001")
        writer = Writer(
            store, Author(run="r000001", epoch=0, fingerprint="f", listed=0), COLUMNS, _nothing, broken.append
        )
        for at in range(0, len(measured), batch):
            rows = list(range(at, min(at + batch, len(measured))))
            writer.results(of, rows, measured[at : at + batch], [array[at : at + batch] for array in arrays])
        writer.close()
        assert broken == []
        assert of.complete
        found: dict[str, Any] = {}
        for part in parts.committed(store):
            for file, column in ((part.results, "value"), (part.errors, "code")):
                for row in pq.read_table(store.root / file.name).to_pylist() if file else ():
                    assert row["path"] not in found
                    found[row["path"]] = row[column]
    return found


@pytest.mark.parametrize("batch", [1, 4, 100])
@pytest.mark.parametrize("bad", [{0}, {9}, {3, 4, 8}, set(range(10))])
def test_a_row_that_does_not_fit_fails_alone(bad: set[int], batch: int) -> None:
    wide = Measured(width=2**31, height=2, frames=1, content_hash=b"x" * 16)
    found = written([wide if i in bad else GOOD for i in range(10)], [pa.array(range(10), pa.int32())], batch)
    assert found == {f"{i}.png": "unwritable" if i in bad else i for i in range(10)}


NUMBERS = st.one_of(st.integers(1, 100), st.integers(-(2**70), 2**70), st.sampled_from([2**31 - 1, 2**31, -(2**31)]))
HASHES = st.one_of(st.just(b"x" * 16), st.binary(max_size=17))
MEASURED = st.builds(Measured, width=NUMBERS, height=NUMBERS, frames=NUMBERS, content_hash=HASHES)


def fits(one: Measured) -> bool:
    """Whether a row of this has a place in the columns."""
    numbers = (one.width, one.height, one.frames)
    return all(-(2**31) <= number < 2**31 for number in numbers) and len(one.content_hash) == 16


@given(st.lists(MEASURED, min_size=1, max_size=12))
def test_whatever_is_measured_is_a_row_or_a_failure(measured: list[Measured]) -> None:
    found = written(measured, [pa.array(range(len(measured)), pa.int32())])
    assert found == {f"{i}.png": i if fits(one) else "unwritable" for i, one in enumerate(measured)}


def test_results_of_another_type_are_failures() -> None:
    assert set(written([GOOD] * 3, [pa.array(["a", "b", "c"])]).values()) == {"unwritable"}
