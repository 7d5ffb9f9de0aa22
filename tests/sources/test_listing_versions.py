"""The version of an image: from its size and time, and from the carried columns of a list."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from trees import STAMP, touch, versions, write_table

from cvjobs.common.errors import WrongUse
from cvjobs.sources import rows
from cvjobs.sources.listing import list_source
from cvjobs.sources.rows import version_of


def test_versions_are_these_on_every_machine() -> None:
    assert rows.mix(np.zeros(1, np.uint64)).tolist() == [0xE220A8397B1DCDAF]  # splitmix64's first number from seed 0
    sizes, times = np.array([0, 1, 5_000_000_000]), np.array([0, -1, STAMP])
    assert version_of(sizes, times).tolist() == [
        0xA706DD2F4D197E6F,
        0xA562DF66C82C649A,
        0x1B7CBA277C4F9642,
    ]


def test_versions_differ_wherever_size_or_time_does() -> None:
    sizes, times = np.meshgrid(np.arange(300), STAMP + np.arange(300))
    assert len(np.unique(version_of(sizes.ravel(), times.ravel()))) == 90_000


def test_version_follows_size_and_time_only(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg", b"one")
    before = versions(list_source(str(tmp_path)))
    touch(tmp_path / "a.jpg", b"two")
    assert versions(list_source(str(tmp_path))) == before
    touch(tmp_path / "a.jpg", b"two", STAMP + 1)
    later = versions(list_source(str(tmp_path)))
    touch(tmp_path / "a.jpg", b"four", STAMP)
    assert len({before["a.jpg"], later["a.jpg"], versions(list_source(str(tmp_path)))["a.jpg"]}) == 3


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
POINT = pa.struct([("x", pa.int32()), ("y", pa.string())])
VALUES: list[tuple[pa.DataType, list[Any]]] = [
    (pa.int8(), [0, 1, -1, None]),
    (pa.int64(), [0, 1, 2**40, None]),
    (pa.bool_(), [True, False, None]),
    (pa.float16(), [np.float16(0), np.float16(1), None]),
    (pa.float64(), [0.0, 1.5, float("nan"), None]),
    (pa.decimal128(9, 2), [0, 1, None]),
    (pa.timestamp("ns", tz="UTC"), [NOON, NOON + timedelta(microseconds=1), None]),
    (pa.date32(), [NOON.date(), NOON.date() + timedelta(days=1), None]),
    (pa.string(), ["", "a", "b", "ab", None]),
    (pa.large_string(), ["", "a", None]),
    (pa.binary(), [b"", b"\xff", None]),
    (pa.binary(2), [b"ab", b"ba", None]),
    (pa.list_(pa.int32()), [[], [0], [0, 0], [1, 2], [2, 1], [None], None]),
    (pa.list_(pa.string()), [["a", "bc"], ["ab", "c"], ["abc"], None]),
    (pa.list_(pa.list_(pa.int32())), [[[1], [2]], [[1, 2]], [[], [1, 2]], None]),
    (pa.list_(pa.float32(), 2), [[1.0, 2.0], [2.0, 1.0], None]),
    (POINT, [{"x": 1, "y": "a"}, {"x": 1, "y": "b"}, {"x": 2, "y": "a"}, {"x": None, "y": None}]),
    (pa.map_(pa.string(), pa.int32()), [[("a", 1)], [("a", 2)], [], None]),
    (pa.dictionary(pa.int32(), pa.string()), ["a", "b", None]),
]


@pytest.mark.parametrize(("kind", "values"), VALUES, ids=[str(kind) for kind, _ in VALUES])
def test_a_changed_carried_value_is_a_new_version(tmp_path: Path, kind: pa.DataType, values: list[Any]) -> None:
    names = [f"{i}.jpg" for i in range(len(values))]
    for name in names:
        touch(tmp_path / name)

    def listed(order: list[int]) -> list[int]:
        column = pa.array([values[i] for i in order], kind)
        file = write_table(tmp_path / "l.parquet", {"path": names, "value": column})
        found: list[int] = list_source(str(file)).images["version"].to_pylist()
        return found

    straight = list(range(len(values)))
    first = listed(straight)
    assert len(set(first)) == len(values)  # files alike, values not
    assert listed(straight) == first
    assert listed(straight[::-1]) == first[::-1]  # a value counts, wherever its row is


def test_a_column_whose_values_have_no_bytes_is_wrong_use(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg")
    views = pa.array([[1]], pa.list_view(pa.int32()))
    with pytest.raises(WrongUse, match=r"column boxes .*leave it out"):
        list_source(str(write_table(tmp_path / "l.parquet", {"path": ["a.jpg"], "boxes": views})))


def test_order_of_carried_columns_does_not_count_but_their_names_do(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg")

    def version(columns: dict[str, list[Any]]) -> int:
        return versions(list_source(str(write_table(tmp_path / "l.parquet", columns))))["a.jpg"]

    path = ["a.jpg"]
    first = version({"path": path, "x": [1], "y": [2]})
    assert version({"y": [2], "path": path, "x": [1]}) == first
    assert version({"path": path, "x": [2], "y": [1]}) != first
    assert version({"path": path, "x": [1], "z": [2]}) != first


def test_versions_with_carried_columns_are_the_same_in_another_process(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg")
    columns = {"path": ["a.jpg"], "tags": [["x", "y"]], "when": [NOON]}
    file = str(write_table(tmp_path / "l.parquet", columns))
    program = """if True:
        import sys
        from cvjobs.sources.listing import list_source
        print(*list_source(sys.argv[1]).images["version"].to_pylist())
    """
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    child = subprocess.run(
        [sys.executable, "-c", program, file], env=environment, capture_output=True, text=True, check=True
    )
    assert [int(child.stdout)] == list_source(file).images["version"].to_pylist()
