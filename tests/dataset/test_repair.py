"""Snapshots that are lost with their copies are made anew of the files, and no row of those is dropped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy
from toy import Run, Toy

from cvjobs.common.errors import CvjobsError, OutputHeld, WrongUse
from cvjobs.dataset import repair, run_files, schema, sealed, snapshot, versions
from cvjobs.dataset.snapshot import Snapshot


@pytest.fixture
def six(tmp_path: Path) -> Toy:
    return toy.six(tmp_path)


@pytest.fixture
def nights(six: Toy) -> Toy:
    """An output of three nights, its rows in files of two of them."""
    six.run()
    six.put("0.jpg", "changed")
    (six.source / "1.jpg").unlink()
    six.run()
    six.put("6.jpg", "new")
    six.put("7.jpg", "BAD")
    six.run()
    return six


def lose(made: Toy, content: bytes | None = b"") -> None:
    """Damage or delete each snapshot, and its copy."""
    for folder in (schema.VERSIONS, schema.COPIES):
        for path in (made.out / folder).iterdir():
            path.unlink() if content is None else path.write_bytes(content)


def mended(made: Toy) -> str:
    return "\n".join(repair.repair(made.store, lambda _: None))


@pytest.mark.parametrize("content", [b"", b"{", b'{\n "a": 1\n}\n', None], ids=["empty", "cut", "garbage", "gone"])
def test_a_snapshot_is_made_anew_of_its_files(nights: Toy, content: bytes | None) -> None:
    before, rows, failed = snapshot.latest(nights.store), nights.rows(), nights.failed()
    lose(nights, content)
    assert "was made anew of 5 results and 2 errors" in mended(nights)
    assert (nights.rows(), nights.failed()) == (rows, failed)
    after = snapshot.latest(nights.store)
    for name in (
        "fingerprint",
        "facts",
        "resolved",
        "source",
        "root",
        "listing_rules",
        "skipped",
        "want",
        "wanted",
        "epoch",
        "recent",
    ):
        assert getattr(after, name) == getattr(before, name), name
    nights.check()
    nights.computed.clear()
    nights.run()
    assert nights.computed == []
    nights.check()


def test_a_damaged_snapshot_is_named_by_all_that_read_it(nights: Toy) -> None:
    lose(nights)
    for call in (nights.rows, nights.run, nights.verify):
        with pytest.raises(CvjobsError, match=r"v0000000\d.json is damaged, .* --repair` brings back") as caught:
            call()
        assert caught.value.exit_code == 1


def test_results_without_a_record_are_named(nights: Toy) -> None:
    lose(nights, None)
    with pytest.raises(
        CvjobsError, match=r"holds results and no record of them: `cvjobs verify \S+ --repair`"
    ) as caught:
        nights.verify()
    assert caught.value.exit_code == 1


def test_what_a_killed_run_left_is_kept(nights: Toy) -> None:
    rows = nights.rows()
    for i in range(10, 16):
        nights.put(f"{i}.jpg", f"image {i}")
    toy.killed(Run(nights), 2)
    lose(nights)
    mended(nights)
    assert len(nights.rows()) == len(rows) + 4
    assert rows.items() <= nights.rows().items()
    nights.computed.clear()
    nights.run()
    assert len([name for name in nights.computed if name[0] == "1"]) == 2
    nights.check()


def test_rows_of_two_versions_of_an_image_leave_the_listed_one(six: Toy) -> None:
    """What a kill between publishing and cleaning leaves: the old row's file is still there."""
    six.run()
    old = {p: p.read_bytes() for p in (six.out / "data").iterdir()}
    six.put("0.jpg", "changed")
    six.run()
    for path, content in old.items():
        path.write_bytes(content)
    lose(six)
    mended(six)
    six.check()


def test_without_any_list_all_rows_stay_and_are_compared_with_the_source(nights: Toy) -> None:
    rows, failed = nights.rows(), nights.failed()
    nights.put("2.jpg", "changed since")
    lose(nights)
    shutil.rmtree(nights.out / schema.RUNS)
    assert "7 rows cannot be proven current (no run's list is left)" in mended(nights)
    assert (nights.rows(), nights.failed()) == (rows, failed)
    nights.computed.clear()
    nights.run()
    assert set(nights.computed) - {"7.jpg", "bad.jpg"} == {"2.jpg"}
    nights.check()


def test_an_older_list_drops_no_row(nights: Toy) -> None:
    """Rows that the list does not have, or has in another version, stay and are said."""
    rows = nights.rows()
    run = snapshot.latest(nights.store).run
    config = run_files.read(nights.store, run)
    assert config is not None
    lose(nights)
    listing = nights.out / run_files.listing_name(run)
    table = pq.read_table(listing)
    config_path = nights.out / run_files.config_name(run)
    record = sealed.unpack(config_path.read_bytes())
    assert record is not None
    later = pa.array([7, *table["version"].to_pylist()[2:]], pa.uint64())
    changed = table.slice(1).set_column(4, table.schema.field(4), later)
    pq.write_table(changed, listing)
    record["listing"]["sha256"] = toy.sha256(listing.read_bytes())
    config_path.write_bytes(sealed.pack(record))
    said = mended(nights)
    assert "2 rows cannot be proven current (the last run's list has another version of them, or none)" in said
    assert nights.rows() == rows
    nights.run()
    nights.check()


def test_a_damaged_file_is_named_and_its_images_are_computed_again(nights: Toy) -> None:
    files = snapshot.latest(nights.store).results
    lose(nights)
    path = nights.out / files[0].name
    path.write_bytes(path.read_bytes()[:-20])
    assert f"{files[0].name} is damaged, and the same command computes its images again" in mended(nights)
    assert len(nights.rows()) == 5 - files[0].rows
    nights.run()
    nights.check()


def test_an_output_of_earlier_versions_is_made_anew(nights: Toy) -> None:
    """Whose runs noted less: the source, its folder and the facts are in other files."""
    before = snapshot.latest(nights.store)
    for path in (nights.out / schema.RUNS).glob("*/config.json"):
        record = sealed.unpack(path.read_bytes())
        assert record is not None
        del record["draft"]
        path.write_text(json.dumps(record))
    lose(nights)
    mended(nights)
    after = snapshot.latest(nights.store)
    assert (after.source, after.root, after.facts) == (before.source, before.root, before.facts)
    nights.run()
    nights.check()


def test_a_repair_that_is_killed_is_begun_again(nights: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = nights.rows()
    lose(nights)
    publish = snapshot.publish

    def killed(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(snapshot, "publish", killed)
    with pytest.raises(KeyboardInterrupt):
        mended(nights)
    monkeypatch.setattr(snapshot, "publish", publish)
    mended(nights)
    assert nights.rows() == rows
    nights.run()
    nights.check()


def test_nothing_is_repaired_beside_another_command(nights: Toy) -> None:
    with Run(nights), pytest.raises(OutputHeld):
        mended(nights)


def test_there_must_be_something_to_repair(six: Toy) -> None:
    with pytest.raises(WrongUse, match="holds no finished cvjobs output"):
        mended(six)
    six.run()
    assert mended(six) == ""
    (six.out / versions.name_of(1)).write_bytes(b"")
    assert mended(six) == f"{versions.name_of(1)} was written anew from its copy"
    six.check()


Edit = Callable[[dict[str, object]], object]


@pytest.mark.parametrize(
    "change",
    [lambda r: r.update(wanted=9), lambda r: r["results"][0].update(rows=4), lambda r: r.update(want="0" * 16)],
    ids=["wanted", "rows", "want"],
)
def test_a_snapshot_of_earlier_versions_with_another_number_is_named_and_healed(six: Toy, change: Edit) -> None:
    """It has no checksum: its numbers are compared with its files."""
    six.run()
    state = versions.newest(six.store)
    assert state is not None
    change(state.record)
    (six.out / versions.copy_of(1)).unlink()
    (six.out / versions.name_of(1)).write_text(json.dumps(state.record, indent=1, sort_keys=True) + "\n")
    assert six.verify(against_source=False).exit_code in (1, 4)
    six.run()
    six.check()


@pytest.mark.slow
def test_a_snapshot_holds_what_its_run_wanted(six: Toy) -> None:
    found: Snapshot = six.run()
    assert found.listing is not None
    path = six.out / found.listing.name
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[position] ^= 4
        path.write_bytes(bytes(flipped))
        assert six.verify(against_source=False).problems


@pytest.mark.parametrize("moved", [False, True], ids=["copied", "moved"])
def test_results_among_the_errors_are_left_out(six: Toy, moved: bool) -> None:
    found = six.run()
    rows, file = six.rows(), six.out / found.results[0].name
    (shutil.move if moved else shutil.copy)(file, six.out / schema.ERRORS / file.name.replace("part-", "part-x-"))
    lose(six)
    assert "holds no errors, and was left out" in mended(six)
    six.run()
    assert six.rows() == rows
    six.check()


def test_a_listing_among_the_results_is_left_out(six: Toy) -> None:
    found = six.run()
    rows = six.rows()
    shutil.copy(six.out / run_files.listing_name(found.run), six.out / schema.DATA / f"part-{found.run}-zz.parquet")
    lose(six)
    assert "holds no results, and was left out" in mended(six)
    assert six.rows() == rows
    six.run()
    six.check()


def test_results_whose_facts_are_garbage_are_kept(six: Toy) -> None:
    six.run()
    rows = six.rows()
    for path in (six.out / schema.DATA).iterdir():
        table = pq.read_table(path)
        facts = {**table.schema.metadata, b"cvjobs.facts": b"[[["}
        pq.write_table(table.replace_schema_metadata(facts), path, write_page_checksum=True)
    shutil.rmtree(six.out / schema.RUNS)
    lose(six)
    mended(six)
    assert six.rows() == rows
