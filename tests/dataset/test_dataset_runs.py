"""Several runs on one output: overwriting, races for a snapshot, runs that slept, damage."""

from __future__ import annotations

import errno
import gc
import os
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
import toy
from toy import Run, Toy

from cvjobs.common.errors import JobFailed, OutputHeld, Stopped, WrongUse
from cvjobs.common.fingerprint import digest
from cvjobs.dataset import changes, keys, merge, parts, schema, snapshot, snapshot_reader, versions
from cvjobs.dataset.parts import Author
from cvjobs.dataset.update import End
from cvjobs.storage.local_store import LocalStore


@pytest.fixture
def six(tmp_path: Path) -> Toy:
    return toy.six(tmp_path)


def test_another_model_is_refused_with_the_difference_named(six: Toy) -> None:
    six.run()
    with pytest.raises(WrongUse, match=r"size 2 there, 3 here.*--overwrite"):
        toy.other(six, size=3).run()
    six.check()


def test_another_model_is_refused_where_a_first_run_was_killed(six: Toy) -> None:
    toy.killed(Run(six), 1)
    with pytest.raises(WrongUse, match=r"size 2 there, 3 here.*--overwrite"):
        toy.other(six, size=3).run()
    six.run()
    assert len(six.computed) == 4
    six.check()


def test_overwrite_keeps_the_old_snapshot_until_the_new_one_is_whole(six: Toy) -> None:
    six.run()
    changed = toy.other(six, size=3)
    toy.killed(Run(changed, overwrite=True), 2)
    assert len(six.rows()) == 5
    assert snapshot.latest(six.store).fingerprint == digest(six.facts)
    changed.run(overwrite=True)
    assert len(changed.computed) == 2, "an interrupted overwrite goes on"
    assert snapshot.latest(six.store).fingerprint == digest(changed.facts)
    changed.check()
    changed.run(overwrite=True)
    assert len(changed.computed) == 6, "a finished one is not continued but done again"
    changed.check()
    with pytest.raises(WrongUse, match="computed otherwise"):
        six.run()


def test_an_overwrite_that_is_not_continued_leaves_nothing(six: Toy) -> None:
    version = six.run().version
    toy.killed(Run(six, overwrite=True), 2)
    assert six.run().version == version
    six.check()


def test_a_stopped_overwrite_changes_nothing(six: Toy) -> None:
    version = six.run().version
    with Run(six, overwrite=True) as run, pytest.raises(Stopped):
        run.finish(lambda author, todo: End(None, stopped=run.commit(author, todo.todo) is not None))
    assert snapshot.latest(six.store).version == version
    six.run(overwrite=True)
    assert six.computed == []
    six.check()


def test_what_was_computed_before_an_error_is_kept(six: Toy) -> None:
    with Run(six) as run, pytest.raises(JobFailed, match="no more"):
        run.finish(lambda author, todo: End(JobFailed("no more"), run.commit(author, todo.todo.slice(0, 2)) is None))
    assert six.verify().exit_code == 4
    six.run()
    assert len(six.computed) == 4
    six.check()


def test_a_run_that_slept_neither_publishes_nor_deletes(six: Toy) -> None:
    sleeper = Run(six)

    def overtaken(author: Author, todo: changes.Plan) -> End:
        sleeper.commit(author, todo.todo.slice(0, 2))
        with Run(six, steal=True) as later:
            later.finish()
        six.check()
        sleeper.commit(author, todo.todo.slice(2, 2))
        return End()

    with pytest.raises(OutputHeld, match="took"):
        sleeper.finish(overtaken)
    sleeper.held.__exit__()
    assert six.rows() == six.wanted()
    six.run()
    assert six.computed == []
    six.check()


def merging(toy_: Toy) -> tuple[snapshot.Snapshot, list[parts.Part], keys.Known, merge.Change, Run]:
    """Return what a run hands to its last merge, with the lock and all parts in place."""
    run = Run(toy_)
    base = snapshot.latest(run.store)
    author = Author(run=schema.new_run(run.held.epoch), epoch=0, fingerprint=run.order.fingerprint, listed=0)
    run.store.writer = author.run
    state = keys.load(run.store, base, [])
    want = changes.wanted(run.store, run.listing, state)
    run.commit(author, run.listing.images)
    mine = parts.committed(run.store)
    state = keys.load(run.store, base, mine)
    none = state.ids.slice(0, 0)
    draft = snapshot.Snapshot(version=0, run=author.run, fingerprint=author.fingerprint, source=run.listing.source)
    change = merge.Change(
        want=want,
        schema=run.order.schema,
        draft=draft,
        lock=run.held.epoch,
        listed=0,
        void=none,
        settled=none,
        abandoned=(),
        merge=False,
    )
    return base, mine, state, change, run


def test_a_merge_on_an_old_snapshot_is_refused_and_deletes_nothing(six: Toy) -> None:
    base, mine, state, change, sleeper = merging(six)
    with Run(six, steal=True) as later:
        later.finish()
    files = sorted(six.out.rglob("*"))
    with pytest.raises(OutputHeld, match="published"):
        merge.merge(sleeper.store, base, mine, state, change)
    assert sorted(six.out.rglob("*")) == files
    sleeper.held.__exit__()
    six.run()
    six.check()


def test_a_merge_whose_number_was_used_up_is_refused(six: Toy) -> None:
    base, _, _, change, sleeper = merging(six)
    late = replace(change.draft, version=1)
    with Run(six, steal=True) as later:
        later.finish()
    six.put("0.jpg", "changed")
    six.run()
    assert snapshot.latest(six.store).version > 1
    assert not (six.out / schema.VERSIONS / "v00000001.json").exists()
    assert not snapshot.publish(sleeper.store, late)
    assert snapshot.latest(six.store).version > 1
    sleeper.held.__exit__()
    six.run()
    assert base.version == 0
    six.put("1.jpg", "changed")
    six.run()
    six.check()


def test_of_two_publishers_one_wins(six: Toy) -> None:
    one, two = (snapshot.Snapshot(version=1, run=run) for run in ("one", "two"))
    assert snapshot.publish(six.store, one)
    assert not snapshot.publish(six.store, two)
    assert snapshot.latest(six.store).run == "one"


def test_the_sweep_spares_later_runs_and_what_is_not_ours(six: Toy) -> None:
    six.run()
    spared = ["data/part-r000009-aa-bb.parquet", "data/.tmp-r000009-aa-bb", "data/notes.txt", "_cvjobs/runs/r000009-aa"]
    swept = ["data/part-r000001-aa-bb.parquet", "errors/.tmp-r000001-aa-bb", "_cvjobs/parts/r000001-aa-bb.json"]
    for name in (*spared, *swept):
        (six.out / name).write_bytes(b"{}")
    merge.sweep(six.store, "r000002-cc", 2)
    assert [name for name in spared if not (six.out / name).exists()] == []
    assert [name for name in swept if (six.out / name).exists()] == []


def test_a_kill_between_publishing_and_cleaning_brings_no_old_row_back(six: Toy) -> None:
    toy.killed(Run(six), 3)
    kept = {p: p.read_bytes() for p in [*(six.out / schema.PARTS).iterdir(), *(six.out / "data").iterdir()]}
    six.run()
    for path, content in kept.items():  # as if the cleaning had not been reached
        path.write_bytes(content)
    folded = [p.stem for p in kept if p.suffix == ".json"]
    toy.forge(six.out, lambda record: record.update(folded=folded))
    six.put("0.jpg", "changed")
    six.run()
    six.check()


def test_a_reader_of_a_superseded_snapshot_is_told(six: Toy) -> None:
    six.run()
    old = snapshot_reader.open_dataset(str(six.out))
    six.run(overwrite=True)
    with pytest.raises(WrongUse, match="replaced by 2 meanwhile: open the output again"):
        old.to_arrow()


def test_a_damaged_snapshot_is_never_taken_for_a_new_output(six: Toy) -> None:
    version = six.run().version
    for name in (versions.name_of(version), versions.copy_of(version)):
        path = six.out / name
        path.write_bytes(path.read_bytes().replace(b'"results"', b'"rasults"'))
    with pytest.raises(JobFailed, match=r"v00000001\.json is damaged, .* `cvjobs verify \S+ --repair`"):
        six.run()
    assert len(toy.plain(six.out)) == 5


def test_a_snapshot_cut_short_was_never_published(six: Toy) -> None:
    six.run()
    (six.out / schema.VERSIONS / "v00000002.json").write_bytes(b'{\n "created": 17')
    six.put("0.jpg", "changed")
    assert six.run().version == 3
    six.check()


def test_a_file_system_without_hard_links_will_do(six: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    toy.killed(Run(six), 1)
    six.run()
    six.check()
    with Run(six), pytest.raises(OutputHeld):
        six.run()
    assert not snapshot.publish(six.store, snapshot.Snapshot(version=snapshot.latest(six.store).version))


def test_a_failed_write_never_reaches_another_file(tmp_path: Path) -> None:
    """What is left in a buffer must not be flushed into the file that got the descriptor's number next."""
    store = LocalStore(tmp_path)
    held: list[BinaryIO] = []

    def fill(file: BinaryIO) -> None:
        held.append(file)
        file.write(b"lost")
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(JobFailed, match="No space left"):
        store.write("a", fill)
    innocent = os.open(tmp_path / "innocent", os.O_WRONLY | os.O_CREAT)  # takes the lowest free number
    held.clear()
    gc.collect()
    os.close(innocent)
    assert (tmp_path / "innocent").read_bytes() == b""
    assert toy.temporary(tmp_path) == []


def test_a_damaged_part_record_is_ignored(six: Toy) -> None:
    toy.killed(Run(six), 2)
    record = next((six.out / schema.PARTS).iterdir())
    record.write_bytes(record.read_bytes().replace(b'"epoch"', b'"epic"'))
    six.run()
    assert len(six.computed) == 4
    six.check()


def test_a_merge_writes_no_file_without_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that is rewritten, the last row groups may hold no row that stays."""
    monkeypatch.setattr(parts, "ROW_GROUP", 2)
    monkeypatch.setattr(merge, "FULL", 1)  # a file for each row group
    made = Toy(tmp_path / "source", tmp_path / "out", every=6)
    for number in range(6):
        made.put(f"{number}.jpg", f"image {number}")
    made.run()
    for name in made.computed[4:]:
        (made.source / name).unlink()
    assert [file.rows for file in made.run(allow_deletions=True).results] == [2, 2]
    made.check()
