"""Which row stands for an image: results and errors, versions, deletions, merging, content, lists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy
from toy import Run, Toy
from trees import as_nobody, opened, touch, write_table

from cvjobs.common.errors import WrongUse
from cvjobs.common.failures import Failure
from cvjobs.dataset import changes, parts, schema
from cvjobs.dataset.parts import Author
from cvjobs.dataset.update import End
from cvjobs.prediction.engine.writer import error_rows
from cvjobs.storage.local_store import LocalStore


@pytest.fixture
def ten(tmp_path: Path) -> Toy:
    """Ten images, one of them bad."""
    made = Toy(tmp_path / "source", tmp_path / "out")
    for i in range(9):
        made.put(f"{i}.jpg", f"image {i}")
    made.put("bad.jpg", "BAD")
    return made


def test_every_image_is_a_result_or_an_error(ten: Toy) -> None:
    snap = ten.run()
    assert (snap.ok, snap.failed, snap.wanted) == (9, 1, 10)
    assert ten.failed() == {"bad.jpg": "corrupt"}
    ten.check()


def test_small_files_are_merged_at_the_end(ten: Toy) -> None:
    snap = ten.run()
    assert len(snap.results) == 1
    assert [p.name for p in (ten.out / "data").iterdir()] == [Path(snap.results[0].name).name]


def test_nothing_changed_publishes_nothing(ten: Toy) -> None:
    first = ten.run()
    files = sorted(p.name for p in ten.out.rglob("*.parquet") if "runs" not in str(p))
    assert ten.run().version == first.version
    assert ten.computed == []
    assert ten.reused == 10
    assert sorted(p.name for p in ten.out.rglob("*.parquet") if "runs" not in str(p)) == files
    ten.check()


def test_changed_new_renamed_and_deleted(ten: Toy) -> None:
    ten.run()
    ten.put("0.jpg", "another image")
    ten.put("new.jpg", "image new")
    (ten.source / "1.jpg").rename(ten.source / "renamed.jpg")
    (ten.source / "2.jpg").unlink()
    ten.run()
    assert sorted(ten.computed) == ["0.jpg", "new.jpg", "renamed.jpg"]
    ten.check()


def test_a_changed_image_that_fails_loses_its_result_and_a_fixed_one_its_error(ten: Toy) -> None:
    ten.run()
    ten.put("0.jpg", "BAD now")
    ten.put("bad.jpg", "good now")
    snap = ten.run()
    assert ten.failed() == {"0.jpg": "corrupt"}
    assert (snap.ok, snap.failed) == (9, 1)
    ten.check()


def test_a_result_beats_an_error_of_the_same_version(ten: Toy) -> None:
    ten.run()
    with Run(ten) as run:

        def zombie(author: Author, _: changes.Plan) -> End:
            rows = run.listing.images.filter([p == "3.jpg" for p in run.listing.images["path"].to_pylist()])
            failure = Failure("read", "read_io", "late")
            parts.commit(run.store, author, None, error_rows(rows.select([f.name for f in schema.KEYS]), [failure]))
            return End()

        run.finish(zombie)
    # A part of a run counts where the run has something to do; else the next one merges it.
    ten.run()
    assert ten.failed() == {"bad.jpg": "corrupt"}
    ten.check()


def test_the_newest_of_two_results_wins(ten: Toy) -> None:
    with Run(ten) as run:

        def twice(author: Author, todo: changes.Plan) -> End:
            row = todo.todo.filter([p == "3.jpg" for p in todo.todo["path"].to_pylist()])
            for value in (b"older", b"newer"):
                parts.commit(run.store, author, toy.results(row, [value], run.order.schema), None)
            run.commit(author, todo.todo.filter([p != "3.jpg" for p in todo.todo["path"].to_pylist()]))
            return End()

        run.finish(twice)
    assert ten.rows()["3.jpg"] == "newer"
    assert len(ten.rows()) == 9


def test_a_part_whose_file_is_gone_is_computed_again(ten: Toy) -> None:
    toy.killed(Run(ten), 2)
    victim = next((ten.out / "data").iterdir())
    victim.unlink()
    ten.run()
    ten.check()
    assert list((ten.out / schema.PARTS).iterdir()) == []


def test_a_file_of_the_snapshot_that_is_gone_is_computed_again(ten: Toy) -> None:
    (ten.out / ten.run().results[0].name).unlink()
    assert ten.verify().exit_code == 4
    ten.run()
    assert len(ten.computed) == 9
    ten.check()


def test_a_damaged_file_is_never_copied_into_a_good_one(ten: Toy) -> None:
    snap = ten.run()
    data = ten.out / snap.results[0].name
    content = data.read_bytes()
    assert content.count(b"image 5") == 1
    data.write_bytes(content.replace(b"image 5", b"image !"))
    ten.put("0.jpg", "changed")  # the file has to be rewritten
    ten.run()
    ten.run()
    ten.check()


def test_what_a_kill_leaves_counts(ten: Toy) -> None:
    toy.killed(Run(ten), 2)
    ten.run()
    assert len(ten.computed) == 4
    ten.check()


def test_retryable_errors_are_tried_every_run_and_all_errors_when_asked(ten: Toy) -> None:
    ten.put("flaky.jpg", "FLAKY")
    ten.run()
    ten.run()
    assert ten.computed == ["flaky.jpg"]
    ten.run(retry_failed=True)
    assert sorted(ten.computed) == ["bad.jpg", "flaky.jpg"]
    assert ten.failed() == {"bad.jpg": "corrupt", "flaky.jpg": "read_io"}
    ten.check()


def test_limit_computes_so_many_and_deletes_nothing(ten: Toy) -> None:
    ten.run()
    for i in range(6):
        ten.put(f"new{i}.jpg", f"image new{i}")
    (ten.source / "0.jpg").unlink()
    ten.put("1.jpg", "changed content")
    before = ten.rows()
    snap = ten.run(limit=2)
    assert len(ten.computed) == 2
    assert before.items() <= ten.rows().items()
    assert (snap.wanted - snap.ok - snap.failed, ten.left) == (4, 5)
    assert ten.verify(against_source=False).exit_code == 0
    while ten.left:
        ten.run(limit=2)
    ten.run()
    ten.check()


def test_limit_goes_on_after_a_kill(ten: Toy) -> None:
    toy.killed(Run(ten, limit=4), 1)
    snap = ten.run(limit=4)
    assert len(ten.computed) == 4
    assert snap.ok + snap.failed == 7
    assert ten.left == 3


def test_a_shrunken_source_is_refused(ten: Toy) -> None:
    ten.run()
    for i in range(3):
        (ten.source / f"{i}.jpg").unlink()
    with pytest.raises(WrongUse, match=r"3 of the 10 images .*--allow-deletions"):
        ten.run()
    assert len(ten.rows()) == 9
    ten.run(allow_deletions=True)
    ten.check()


def test_losing_a_fifth_is_no_accident(ten: Toy) -> None:
    ten.run()
    for i in range(2):
        (ten.source / f"{i}.jpg").unlink()
    ten.run()
    ten.check()


def test_an_empty_source_is_refused_and_may_be_allowed(ten: Toy) -> None:
    ten.run()
    for path in ten.source.iterdir():
        path.unlink()
    with pytest.raises(WrongUse, match="--allow-deletions"):
        ten.run()
    snap = ten.run(allow_deletions=True)
    assert (snap.ok, snap.failed, snap.wanted) == (0, 0, 0)
    ten.check()


def test_another_source_is_refused(ten: Toy, tmp_path: Path) -> None:
    ten.run()
    elsewhere = Toy(tmp_path / "elsewhere", ten.out)
    elsewhere.put("0.jpg", "x")
    with pytest.raises(WrongUse, match="holds the results of"):
        elsewhere.run()
    ten.check()


def test_another_source_is_refused_before_the_first_snapshot(ten: Toy, tmp_path: Path) -> None:
    toy.killed(Run(ten), 1)
    elsewhere = Toy(tmp_path / "elsewhere", ten.out)
    elsewhere.put("0.jpg", "x")
    with pytest.raises(WrongUse, match="holds the results of"):
        elsewhere.run()


def test_rows_under_an_unreadable_folder_are_kept(tmp_path: Path) -> None:
    place = opened(tmp_path)
    made = Toy(place / "source", place / "out")
    for name in ("a.jpg", "shut/b.jpg", "shut/deep/c.jpg"):
        made.put(name, name)
    place.chmod(0o777)

    def nightly() -> dict[str, str]:
        made.run()
        return made.rows()

    assert len(as_nobody(nightly)) == 3
    (made.source / "shut").chmod(0)
    try:
        assert as_nobody(nightly) == {name: name for name in ("a.jpg", "shut/b.jpg", "shut/deep/c.jpg")}
    finally:
        (made.source / "shut").chmod(0o755)
    assert len(as_nobody(nightly)) == 3


def test_an_entry_that_fails_for_another_reason_is_said_anew(ten: Toy) -> None:
    (ten.source / "gone.jpg").symlink_to("nowhere")
    ten.run()
    assert ten.failed()["gone.jpg"] == "list_vanished"
    with Run(ten) as run:
        failures = run.listing.failures
        codes = pa.array(["refused"] * failures.num_rows)
        other = failures.set_column(failures.schema.get_field_index("code"), failures.schema.field("code"), codes)
        run.order = replace(run.order, listing=replace(run.listing, failures=other))
        run.finish()
    assert ten.failed()["gone.jpg"] == "refused"
    ten.run()
    assert ten.failed()["gone.jpg"] == "list_vanished"
    version = ten.run().version
    assert ten.run().version == version


def test_a_change_within_the_same_time_stamp_is_found(ten: Toy) -> None:
    with Run(ten) as run:
        fresh = run.listing.started_ns - 1_000_000_000
    touch(ten.source / "0.jpg", b"image 0", fresh)
    ten.run()
    touch(ten.source / "0.jpg", b"IMAGE 0", fresh)  # same length, same time
    ten.run()
    assert ten.rows()["0.jpg"] == "IMAGE 0"
    ten.check()


def test_a_fresh_image_is_looked_at_until_its_time_stamp_is_old(ten: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run(ten) as run:
        fresh = run.listing.started_ns - 1_000_000_000
    touch(ten.source / "0.jpg", b"image 0", fresh)
    assert len(ten.run().recent) == 1
    monkeypatch.setattr(changes, "RACY", -(10**12))  # as if the next listing were long after
    assert ten.run().recent == ()
    assert ten.computed == []
    ten.check()


def test_a_racy_change_that_fails_loses_its_result(ten: Toy) -> None:
    with Run(ten) as run:
        fresh = run.listing.started_ns - 1_000_000_000
    touch(ten.source / "0.jpg", b"image", fresh)
    ten.run()
    touch(ten.source / "0.jpg", b"BAD!!", fresh)
    ten.run()
    assert ten.failed() == {"0.jpg": "corrupt", "bad.jpg": "corrupt"}
    ten.check()


def test_by_content_a_touched_image_is_not_computed_but_its_time_is_brought_up_to_date(ten: Toy) -> None:
    ten.run()
    for i in range(4):
        ten.put(f"{i}.jpg", f"image {i}")
    ten.put("4.jpg", "changed")
    ten.run(by_content=True)
    assert ten.computed == ["4.jpg"]
    ten.check()  # against the source: the rows have the new versions
    ten.run()
    assert ten.computed == []


def test_by_time_a_touched_image_is_computed(ten: Toy) -> None:
    ten.run()
    ten.put("0.jpg", "image 0")
    ten.run()
    assert ten.computed == ["0.jpg"]


def a_list(tmp_path: Path, prices: list[str]) -> Toy:
    for i in range(len(prices)):
        touch(tmp_path / f"{i}.jpg", f"image {i}".encode())
    names = [f"{i}.jpg" for i in range(len(prices))]
    return Toy(write_table(tmp_path / "list.csv", {"path": names, "price": prices}), tmp_path / "out")


def prices(made: Toy) -> dict[str, str]:
    return toy.pairs(pq.read_table(made.out / "data"), "price")


def test_the_columns_of_a_list_reach_the_results(tmp_path: Path) -> None:
    made = a_list(tmp_path, ["1", "2", "3"])
    made.run()
    assert prices(made) == {"0.jpg": "1", "1.jpg": "2", "2.jpg": "3"}
    made = a_list(tmp_path, ["1", "9", "3"])
    made.run()
    assert made.computed == ["1.jpg"]
    assert prices(made) == {"0.jpg": "1", "1.jpg": "9", "2.jpg": "3"}


def test_by_content_a_changed_column_is_taken_over_without_computing(tmp_path: Path) -> None:
    a_list(tmp_path, ["1", "2", "3"]).run()
    made = a_list(tmp_path, ["1", "9", "3"])
    made.run(by_content=True)
    assert made.computed == []
    assert prices(made) == {"0.jpg": "1", "1.jpg": "9", "2.jpg": "3"}
    made.run()
    assert made.computed == []


def test_by_content_a_new_column_is_taken_over(tmp_path: Path) -> None:
    a_list(tmp_path, ["1", "2", "3"]).run()
    write_table(tmp_path / "list.csv", {"path": ["0.jpg", "1.jpg", "2.jpg"], "colour": ["red", "green", "blue"]})
    made = Toy(tmp_path / "list.csv", tmp_path / "out")
    made.run(by_content=True)
    assert made.computed == []
    table = pq.read_table(made.out / "data")
    assert toy.pairs(table, "colour") == {"0.jpg": "red", "1.jpg": "green", "2.jpg": "blue"}
    assert "price" not in table.schema.names


def test_an_image_that_cannot_be_listed_is_an_error_and_recovers(tmp_path: Path) -> None:
    made = Toy(tmp_path / "source", tmp_path / "out")
    made.put("a.jpg", "a")
    (made.source / "b.jpg").symlink_to("target")
    made.run()
    assert made.failed() == {"b.jpg": "list_vanished"}
    assert made.run().version == 1
    made.put("target", "b")
    made.run()
    assert (made.rows(), made.failed()) == ({"a.jpg": "a", "b.jpg": "b"}, {})


def test_a_store_reads_what_it_wrote_and_refuses_a_file_as_folder(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, "w")
    assert store.create("a/b", b"1")
    assert not store.create("a/b", b"2")
    assert store.read("a/b") == b"1"
    with pytest.raises(FileNotFoundError):
        store.read("a/b/c")
