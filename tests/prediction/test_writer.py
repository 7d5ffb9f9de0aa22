"""The writer: rows become parts, and a row that does not fit into its columns is a failure of its own."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cvjobs.common.failures import CODES, Failure
from cvjobs.dataset import parts, schema
from cvjobs.dataset.parts import Author
from cvjobs.images.measured import Measured, Measurements, together
from cvjobs.prediction.engine.writer import Shard, Writer, error_rows
from cvjobs.sources.rows import failure_batch, path_columns, stat_columns
from cvjobs.storage.local_store import LocalStore

RESULTS = pa.schema([pa.field("value", pa.int32())])
COLUMNS = schema.result_schema(pa.schema([pa.field("note", pa.string())]), RESULTS)
GOOD = Measured(width=3, height=2, frames=1, content_hash=b"x" * 16)


def shard(count: int, carried: pa.Table | None = None) -> Shard:
    """Some key rows with columns of a list's own."""
    carried = pa.table({"note": pa.array(["n"] * count)}) if carried is None else carried
    path, ids = path_columns([b"%d.png" % number for number in range(count)])
    size, modified, version = stat_columns([5] * count, [7] * count)
    columns = [path, ids, size, modified, pa.array(version), *carried.columns]
    return Shard(pa.table(columns, schema=pa.schema([*schema.KEYS, *carried.schema])))


def _nothing() -> None:
    """Refuse no commit."""


@dataclass
class Rested:
    """What a writer left: the rows with a result, and those with an error."""

    results: pa.Table
    errors: list[dict[str, Any]]


def rested(of: Shard, measured: Measurements, results: pa.Table) -> Rested:
    """Write rows at once and return what is durable."""
    broken: list[BaseException] = []
    carried = pa.schema([*of.table.schema][len(schema.KEYS) :])
    columns = schema.result_schema(carried, results.schema)
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder), "r000001")
        writer = Writer(
            store, Author(run="r000001", epoch=0, fingerprint="f", listed=0), columns, _nothing, broken.append
        )
        writer.results(of, list(range(len(measured))), measured, [c.combine_chunks() for c in results.columns])
        writer.close()
        assert broken == []
        assert of.complete
        (part,) = parts.committed(store)
        good = pq.read_table(store.root / part.results.name) if part.results else columns.empty_table()
        bad = pq.read_table(store.root / part.errors.name).to_pylist() if part.errors else []
    return Rested(good, bad)


def written(arrays: list[pa.Array], batch: int = 100) -> dict[str, Any]:
    """Write rows in batches and return the value or the code of each by path; every one is durable afterwards."""
    broken: list[BaseException] = []
    count = len(arrays[0])
    of, measured = shard(count), together([GOOD] * count)
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder), "r000001")
        writer = Writer(
            store, Author(run="r000001", epoch=0, fingerprint="f", listed=0), COLUMNS, _nothing, broken.append
        )
        for at in range(0, count, batch):
            rows = list(range(at, min(at + batch, count)))
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
    found = written([pa.array([2**31 if i in bad else i for i in range(10)], pa.int64())], batch)
    assert found == {f"{i}.png": "unwritable" if i in bad else i for i in range(10)}


NUMBERS = st.one_of(
    st.integers(1, 100), st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**31 - 1, 2**31, -(2**31)])
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=12))
def test_whatever_a_model_answers_is_a_row_or_a_failure(numbers: list[int]) -> None:
    found = written([pa.array(numbers, pa.int64())])
    fits = [-(2**31) <= number < 2**31 for number in numbers]
    assert found == {f"{i}.png": number if fits[i] else "unwritable" for i, number in enumerate(numbers)}


def test_results_of_another_type_are_failures() -> None:
    assert set(written([pa.array(["a", "b", "c"])]).values()) == {"unwritable"}


EXTREMES: dict[pa.DataType, list[Any]] = {
    pa.int8(): [-128, 127],
    pa.uint8(): [0, 255],
    pa.int32(): [-(2**31), 2**31 - 1],
    pa.int64(): [-(2**63), 2**63 - 1],
    pa.uint64(): [0, 2**64 - 1],
    pa.float16(): [np.float16(6e4), np.float16("-inf"), np.float16("nan")],
    pa.float32(): [3.4e38, -3.4e38, 1e-45, math.inf, -math.inf, math.nan, -0.0],
    pa.float64(): [1.8e308, -1.8e308, 5e-324, math.inf, math.nan],
    pa.bool_(): [True, False],
    pa.string(): ["", "\0", "\x1b[31m", "\u202e", "\U0010ffff", "x" * 10_000],
    pa.binary(): [b"", bytes(range(256))],
    pa.decimal128(38, 0): [Decimal("9" * 38), Decimal("-" + "9" * 38)],
    pa.date32(): [-(2**31), 2**31 - 1],
    pa.timestamp("ns", tz="UTC"): [-(2**63), 2**63 - 1],
    pa.timestamp("s"): [-(2**63), 0, 2**63 - 1],  # a file has milliseconds instead
    pa.duration("us"): [-(2**63), 2**63 - 1],
    pa.time64("ns"): [0, 86_399_999_999_999],
}


def values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Extremes of a column's type, nothing among them, also within lists and structs."""
    if pa.types.is_list(kind):
        return st.none() | st.lists(values(kind.value_type), max_size=3)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({field.name: values(field.type) for field in kind})
    extremes: st.SearchStrategy[Any] = st.sampled_from(EXTREMES[kind])
    return st.none() | extremes


def tables(fields: list[pa.Field], rows: int) -> st.SearchStrategy[pa.Table]:
    """Tables of such columns."""
    columns = [st.lists(values(field.type), min_size=rows, max_size=rows) for field in fields]

    def table(drawn: tuple[list[Any], ...]) -> pa.Table:
        arrays = [pa.array(column, field.type) for column, field in zip(drawn, fields, strict=True)]
        return pa.table(arrays, schema=pa.schema(fields))

    return st.tuples(*columns).map(table)


FAR = pa.timestamp("s")
KINDS = [*EXTREMES, pa.list_(pa.int64()), pa.list_(pa.list_(pa.float32())), pa.struct([("a", pa.uint64())])]
RESULT_FIELDS = [
    *(field.with_name(f"{task}_{field.name}") for task, one in schema.SCHEMAS.items() for field in one),
    pa.field("embedding", pa.list_(pa.float32())),
]


def plain(column: pa.ChunkedArray) -> str:
    """Return all values as text: a NaN is no NaN, and Python has no such dates."""
    return str(column.combine_chunks().to_string(window=1000, container_window=1000))


def own(table: pa.Table) -> tuple[list[str], list[pa.ChunkedArray]]:
    return table.schema.names, table.columns


@pytest.mark.slow
@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.data())
def test_whatever_a_list_or_a_model_holds_is_written_as_it_is(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 5))
    kinds = data.draw(st.lists(st.sampled_from(KINDS), max_size=4))
    carried = data.draw(tables([pa.field(f"own_{i}", kind) for i, kind in enumerate(kinds)], count))
    results = data.draw(tables(RESULT_FIELDS, count))
    found = rested(shard(count, carried), together([GOOD] * count), results)
    far = [i for i in range(count) for column in carried.columns if column.type == FAR and column[i].value]
    expected = [i for i in range(count) if i not in far]
    assert [row["code"] for row in found.errors] == ["unwritable"] * (count - len(expected))
    if expected:
        kept = found.results.sort_by("path")
        for name, column in [*zip(*own(carried), strict=True), *zip(*own(results), strict=True)]:
            found_column = kept[name].cast(FAR) if column.type == FAR else kept[name]  # Parquet has no seconds
            assert plain(found_column) == plain(column.take(expected)), name


@settings(deadline=None)
@given(st.text(st.characters(), max_size=700), st.sampled_from(sorted(CODES)))
def test_whatever_a_failure_says_is_written(detail: str, code: str) -> None:
    failure = Failure("infer", code, detail)
    (row,) = error_rows(shard(1).table, [failure]).to_pylist()
    assert (row["code"], row["detail"]) == (code, failure.detail)
    assert len(row["detail"]) <= 500
    if detail.isascii():
        assert row["detail"] == detail[:500]
    batch = failure_batch([b"a.png"], [code], [detail])
    assert batch.column("detail").to_pylist() == [failure.detail]


SIZES = st.integers(-(2**70), 2**70) | st.sampled_from([2**63 - 1, 2**63, -(2**63)])


@settings(deadline=None)
@given(st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=5))
def test_whatever_a_server_says_of_a_size_or_a_time_is_a_row(pairs: list[tuple[int, int]]) -> None:
    size, modified, version = stat_columns(*zip(*pairs, strict=True))
    assert len(size) == len(modified) == len(version) == len(pairs)
    for given_, row in zip(pairs, size.to_pylist(), strict=True):
        assert row == given_[0] or not -(2**63) <= min(g for g, _ in pairs) <= max(g for g, _ in pairs) < 2**63
