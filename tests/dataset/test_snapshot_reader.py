"""Reading the newest snapshot: rows by their positions through all files, and a snapshot that is replaced meanwhile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from predictions import output

from cvjobs.common.categories import Category
from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.dataset import snapshot
from cvjobs.dataset.snapshot_reader import SnapshotReader, open_dataset, open_newest
from cvjobs.storage.local_store import LocalStore

CLASSES = [Category(3, "cat"), Category(7, "dog")]


@pytest.fixture
def reader(tmp_path: Path) -> SnapshotReader:
    rows = [{"path": f"{n:02}.jpg", "width": n + 1, "height": 9, "detections": []} for n in range(9)]
    rows += [{"path": "bad.jpg", "error": "corrupt"}]
    return open_newest(LocalStore(output(tmp_path / "out", "detect", CLASSES, rows)))


def test_what_an_output_says_of_itself(reader: SnapshotReader) -> None:
    assert (len(reader), reader.task, reader.categories, reader.carried) == (9, "detect", CLASSES, [])
    assert reader.schema.names == pq.read_schema(reader.store.place + "/" + reader.snapshot.results[0].name).names
    assert (reader.origin["images"], reader.origin["failed"], reader.origin["task"]) == (9, 1, "detect")
    assert [table["code"].to_pylist() for table in reader.errors(["code"])] == [["corrupt"]]


def test_rows_are_found_by_their_positions(reader: SnapshotReader) -> None:
    paths = [path for table in reader.tables(["path"]) for path in table["path"].to_pylist()]
    assert sorted(paths) == [f"{n:02}.jpg" for n in range(9)]
    for first, table in reader.groups(["path", "width"]):
        assert table["path"].to_pylist() == paths[first : first + table.num_rows]
    for wanted in ([], [0], [8], [2, 3, 7], list(range(9))):
        taken = reader.take(["width", "path"], np.array(wanted, np.int64))
        assert taken.schema.names == ["width", "path"]
        assert taken["path"].to_pylist() == [paths[n] for n in wanted]
        assert taken["width"].to_pylist() == [int(paths[n][:2]) + 1 for n in wanted]


def test_only_row_groups_with_a_wanted_row_are_read(reader: SnapshotReader) -> None:
    gone = reader.snapshot.results[0]
    (Path(reader.store.place) / gone.name).unlink()
    assert list(reader.groups(["path"], np.array([], np.int64))) == []
    with pytest.raises(snapshot.DamagedOutput, match=gone.name):
        list(reader.groups(["path"], np.array([0])))


def test_a_snapshot_that_was_replaced_is_no_damage(reader: SnapshotReader) -> None:
    store, old = reader.store, reader.snapshot
    (Path(store.place) / old.results[0].name).unlink()
    with (
        pytest.raises(snapshot.DamagedOutput, match=r"\.parquet is gone: the same command"),
        reader.unless_replaced("try again"),
    ):
        list(reader.tables(["path"]))
    opened = open_dataset(store.place)
    assert snapshot.publish(store, snapshot.Snapshot.load({**old.record(), "version": old.version + 1}))
    sentence = f"Snapshot {old.version} of {store.place} was replaced by {old.version + 1} meanwhile"
    with pytest.raises(JobFailed, match=rf"^{sentence}: try again\.$"), reader.unless_replaced("try again"):
        list(reader.tables(["path"]))
    with pytest.raises(WrongUse, match=rf"^{sentence}: open the output again\.$"):
        opened.to_arrow()


def test_without_a_snapshot_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"holds no finished cvjobs output: name the -o folder of a run that ended\.$"):
        open_newest(LocalStore(tmp_path))
    with pytest.raises(WrongUse, match=r"holds no finished cakes: name the -o folder of an oven\.$"):
        open_newest(LocalStore(tmp_path), "cakes", "an oven")
    with pytest.raises(WrongUse, match=r"^There is no \S+/nothing: name the -o folder of an oven\.$"):
        open_newest(LocalStore(tmp_path / "nothing"), "cakes", "an oven")
