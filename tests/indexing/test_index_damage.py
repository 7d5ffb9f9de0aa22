"""An index whose files are damaged: what `cvjobs verify` says, what counts instead, and what the next command mends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import buckets
import numpy as np
import pytest
from commands import here, sentence
from flips import Tally, flipped, flips, said
from vectors import Fake, clustered, named

import cvjobs
from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.dataset import contents, schema, sealed, versions
from cvjobs.dataset.folder_report import FolderReport
from cvjobs.dataset.sealed import SEAL
from cvjobs.indexing import generation
from cvjobs.indexing.search.opened_index import open_index
from cvjobs.storage.local_store import LocalStore

pytestmark = pytest.mark.slow

DIM = 8


def built(root: Path, kind: Any = "exact", count: int = 300) -> Path:
    """Return the place of an index with a second generation, which leaves out vectors and has later ones."""
    fake = Fake(root / "vectors", DIM)
    fake.put(named(clustered(count, DIM)))
    cvjobs.index(str(fake.out), out=str(root / "index"), kind=kind)
    fake.put(named(clustered(4, DIM, seed=1), count), gone=("image000007.jpg", "image000011.jpg"))
    report = cvjobs.index(str(fake.out), out=str(root / "index"), kind=kind)
    assert (report.added, report.removed, report.rebuilt) == (4, 2, False)
    return root / "index"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of embeddings and their index."""
    return built(tmp_path_factory.mktemp("made")).parent


@pytest.fixture
def index(made: Path, tmp_path: Path) -> Path:
    """The place of an index of one's own."""
    shutil.copytree(made / "index", tmp_path / "index")
    return tmp_path / "index"


def answers(index: Path) -> Any:
    """What an index answers: paths, with their scores as bits."""
    with open_index(str(index)) as opened:
        scores, rows = opened.search(clustered(6, DIM, seed=2), 5)
        return opened.rows(rows.ravel()).to_pylist(), np.asarray(scores, np.float32).tobytes()


def again(made: Path, index: Path, rebuild: bool = False) -> Any:
    """The same command once more."""
    return cvjobs.index(str(made / "vectors"), out=str(index), rebuild=rebuild)


def problems(index: Path) -> list[str]:
    report = cvjobs.verify(str(index))
    assert report.exit_code == bool(report.problems)
    return list(report.problems)


def test_an_index_is_exact_and_says_what_was_checked(index: Path) -> None:
    ended = here("verify", index)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"an index: 2 generations, 5 files checked\n{index} is exact\n"
    found = json.loads(here("verify", index, "--json").out)
    assert (found["holds"], found["exit_code"], found["problems"]) == ("an index", 0, [])
    assert "leave out --source" in sentence(here("verify", index, "--source", index), 2)


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "empty": lambda _: b"",
    "garbage": lambda content: bytes(reversed(content)),
    "another number": lambda content: content.replace(b'"nprobe": 0', b'"nprobe": 9'),
    "gone": lambda _: None,
}


def harm(file: Path, damage: str) -> bytes:
    """Damage a file, and return what it was."""
    whole = file.read_bytes()
    content = DAMAGES[damage](whole)
    assert content != whole
    file.unlink() if content is None else file.write_bytes(content)
    return whole


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [versions.name_of(2), versions.copy_of(2), contents.INDEX_RECORD])
def test_a_damaged_record_is_named_and_the_next_command_writes_it_anew(
    made: Path, index: Path, name: str, damage: str
) -> None:
    before = answers(index)
    whole = harm(index / name, damage)
    assert answers(index) == before
    report = cvjobs.verify(str(index))
    if damage == "gone" and name != versions.name_of(2):  # as a kill leaves it
        assert (report.problems, len(report.notes)) == ((), 1)
    else:
        (problem,) = report.problems
        assert problem.startswith(f"{name} is {'gone' if damage == 'gone' else 'damaged'}")
    assert (again(made, index).generation, (index / name).read_bytes()) == (2, whole)
    assert problems(index) == []


def test_what_a_kill_leaves_between_two_files_is_no_damage(made: Path, index: Path) -> None:
    before = answers(index)
    (index / versions.copy_of(2)).unlink()
    shutil.copy(index / versions.name_of(1), index / contents.INDEX_RECORD)
    report = cvjobs.verify(str(index))
    assert (report.exit_code, len(report.notes)) == (0, 2)
    assert answers(index) == before
    again(made, index)
    assert cvjobs.verify(str(index)).notes == ()


def test_where_record_and_copy_are_damaged_the_indexs_own_file_counts(made: Path, index: Path) -> None:
    before = answers(index)
    names = (versions.name_of(2), versions.copy_of(2))
    whole = [harm(index / name, "garbage") for name in names]
    assert answers(index) == before
    assert [problem.partition(" is ")[0] for problem in problems(index)] == list(names)
    again(made, index)
    assert [(index / name).read_bytes() for name in names] == whole
    assert problems(index) == []


def test_a_rollback_from_a_generation_that_cannot_be_read(
    made: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (versions.name_of(2), versions.copy_of(2), contents.INDEX_RECORD):
        (index / name).write_bytes(b"{}\n")
    with pytest.raises(JobFailed, match=r"v00000002.json is damaged.*--rollback` goes back"):
        answers(index)
    assert "v00000002.json is damaged" in sentence(here("verify", index), 1)
    report = cvjobs.index(str(index), rollback=True)
    assert (report.generation, report.count) == (3, 300)
    assert "v00000002.json is damaged, and generation 1 counts again" in capsys.readouterr().err
    assert problems(index) == []
    assert not (index / versions.name_of(2)).exists()
    assert again(made, index).count == 302
    only = index.with_name("only")
    shutil.copytree(index, only)
    for number in versions.numbers(LocalStore(only)):
        for name in (versions.name_of(number), versions.copy_of(number), contents.INDEX_RECORD):
            (only / name).write_bytes(b"{}\n")
    with pytest.raises(WrongUse, match="no generation that can be read"):
        cvjobs.index(str(only), rollback=True)


def test_every_file_is_checked_by_verify_and_by_a_query(index: Path) -> None:
    newest = generation.current(LocalStore(index))
    for file in newest.files:
        content = (index / file.name).read_bytes()
        for damage in (content[:-1], content[:40] + bytes([content[40] ^ 1]) + content[41:], None):
            path = index / file.name
            path.unlink() if damage is None else path.write_bytes(damage)
            (problem,) = problems(index)
            assert problem.startswith(f"{file.name} is {'gone' if damage is None else 'damaged'}")
            assert "--rebuild` builds it anew" in problem
            with pytest.raises(JobFailed, match="is damaged"):
                answers(index)
            path.write_bytes(content)
    assert problems(index) == []


@pytest.mark.parametrize("name", ["ids.parquet", "index.faiss", "delta.parquet"])
@pytest.mark.parametrize("cut", [True, False])
def test_an_index_with_a_file_that_is_cut_or_gone_is_never_up_to_date(
    made: Path, index: Path, name: str, cut: bool
) -> None:
    (path,) = index.glob(f"g*/{name}")
    path.write_bytes(path.read_bytes()[:-1]) if cut else path.unlink()
    before = (index / schema.SUMMARY).read_bytes()
    words = sentence(here("index", made / "vectors", "-o", index), 1)
    assert f"{path} is damaged ({'it has ' if cut else 'it is gone'}" in words
    asked = here("query", index, made / "vectors", "-o", index.with_name("answers"))
    assert words.partition(": ")[2] == sentence(asked, 1).partition(": ")[2]
    assert (versions.numbers(LocalStore(index)), (index / schema.SUMMARY).read_bytes()) == ([1, 2], before)
    assert again(made, index, rebuild=True).generation == 3
    assert again(made, index).kept == 302


def test_a_file_that_is_gone_or_cut_in_a_bucket(made: Path, index: Path, s3: str) -> None:
    bucket = buckets.made(s3, "damaged")
    bucket.upload(index, "one")
    words = ("index", made / "vectors", "-o", bucket.url("one"), *bucket.options)
    assert "0 added, 0 changed, 0 removed, 302 kept" in here(*words).out
    (key,) = (key for key in bucket.keys("one") if key.endswith("/index.faiss"))
    bucket.put(key, bucket.read(key)[:-1])
    assert f"{bucket.url(key)} is damaged (it has " in sentence(here(*words), 1)
    bucket.delete(key)
    anew = f"`cvjobs index {made / 'vectors'} -o {bucket.url('one')} --rebuild` builds it anew"
    assert f"{bucket.url(key)} is damaged (it is gone): {anew}" in sentence(here(*words), 1)


def test_an_update_is_refused_where_a_file_that_it_does_not_read_is_gone(tmp_path: Path) -> None:
    index = built(tmp_path)
    (index / generation.current(LocalStore(index)).files[0].name).unlink()
    fake = Fake(tmp_path / "vectors", DIM)
    fake.put({**named(clustered(300, DIM)), **named(clustered(3, DIM, seed=2), 304)})
    assert "is damaged (it is gone)" in sentence(here("index", fake.out, "-o", index), 1)
    assert versions.numbers(LocalStore(index)) == [1, 2]
    fake.put(named(clustered(500, DIM, seed=3)))  # more changed than an update is for: a new build mends it
    assert again(tmp_path, index).rebuilt


def test_damage_of_an_older_generation_is_a_note(made: Path, index: Path) -> None:
    again(made, index, rebuild=True)
    before = answers(index)
    for old in index.glob("g000002-*/*"):
        old.write_bytes(b"")
    report = cvjobs.verify(str(index))
    assert (report.exit_code, report.problems, len(report.notes)) == (0, (), 3)
    assert all("nobody can go back; the newest one answers" in note for note in report.notes)
    assert again(made, index).generation == 3
    assert answers(index) == before
    assert "of generation 2 is damaged (it has 0 bytes instead of" in sentence(here("index", index, "--rollback"), 2)
    assert versions.numbers(LocalStore(index)) == [1, 2, 3]


def test_an_older_generation_whose_files_do_not_fit_together_is_a_note(index: Path) -> None:
    store = LocalStore(index)
    state = versions.read(store, 1)
    assert isinstance(state, versions.VersionRecord)
    for name in (versions.name_of(1), versions.copy_of(1)):
        store.write_bytes(name, sealed.pack({**state.record, "base": 299}))
    report = cvjobs.verify(str(index))
    assert (report.exit_code, report.problems) == (0, ())
    assert any(note.startswith("generation 1 has 300 rows") for note in report.notes)


def remedies(made: Path, index: Path) -> list[str]:
    """What `query`, `index` and `verify` say that mends a damaged index."""
    said = [sentence(here("query", index, made / "vectors", "-o", index.with_name("answers")), 1)]
    said.append(sentence(here("index", made / "vectors", "-o", index), 1))
    return [words[words.index("`cvjobs") :].strip().rstrip(".") for words in (*said, problems(index)[0])]


@pytest.mark.parametrize("before", ["whole", "damaged", "flipped", "none"])
def test_a_remedy_names_real_places_and_a_rollback_only_where_it_helps(made: Path, tmp_path: Path, before: str) -> None:
    index = tmp_path / "an index"
    if before == "none":
        cvjobs.index(str(made / "vectors"), out=str(index))
    else:
        shutil.copytree(made / "index", index)
    (path,) = index.glob("g000001-*/index.faiss" if before == "none" else "g000002-*/delta.faiss")
    path.write_bytes(path.read_bytes()[:-1])
    (old,) = index.glob("g000001-*/ids.parquet")
    content = old.read_bytes()
    if before == "damaged":
        old.unlink()
    if before == "flipped":
        old.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
    anew = f"`cvjobs index {made / 'vectors'} -o '{index}' --rebuild` builds it anew"
    back = f"`cvjobs index '{index}' --rollback` goes back to the generation before, and "
    assert set(remedies(made, index)) == {(back if before == "whole" else "") + anew}


def test_where_no_generation_can_be_read_there_is_none_to_go_back_to(made: Path, index: Path) -> None:
    for number in (1, 2):
        for name in (versions.name_of(number), versions.copy_of(number), contents.INDEX_RECORD):
            (index / name).write_bytes(b"{}\n")
    words = sentence(here("index", made / "vectors", "-o", index), 1)
    assert "--rollback" not in words
    assert f"delete {index}, and `cvjobs index {made / 'vectors'} -o {index}` builds it anew" in words
    assert words.partition("whole: ")[2] == sentence(here("verify", index), 1).partition("whole: ")[2]
    words = sentence(here("index", index, "--rollback"), 2)
    assert f"delete {index}, and `cvjobs index {made / 'vectors'} -o {index}` builds it anew" in words
    shutil.rmtree(index)
    assert again(made, index).rebuilt
    words = sentence(here("index", index, "--rollback"), 2)
    assert f"before 1: `cvjobs index {made / 'vectors'} -o {index} --rebuild` builds it anew" in words


def test_an_index_whose_records_are_all_empty_says_what_counts(index: Path) -> None:
    for file in (*(index / schema.VERSIONS).iterdir(), *(index / schema.COPIES).iterdir()):
        file.write_bytes(b"")
    report = cvjobs.verify(str(index))
    assert isinstance(report, FolderReport)
    assert dict(report.checked) == {"generations": 1, "files": 5}
    assert [problem.partition(": ")[0] for problem in report.problems] == [
        *(f"{name(1)} is damaged" for name in (versions.name_of, versions.copy_of)),
        *(f"{name(2)} is damaged, and index.json counts" for name in (versions.name_of, versions.copy_of)),
    ]
    (path,) = index.glob("g*/delta.faiss")
    path.write_bytes(b"")
    assert any(problem.startswith(f"g{path.parent.name[1:]}/delta.faiss is damaged") for problem in problems(index))


def test_a_damaged_record_says_which_other_one_counts(made: Path, index: Path) -> None:
    for name, other in ((versions.name_of(2), versions.copy_of(2)), (versions.copy_of(2), versions.name_of(2))):
        whole = harm(index / name, "empty")
        assert problems(index)[0].startswith(f"{name} is damaged, and {other} counts: ")
        (index / name).write_bytes(whole)
    edited = {**json.loads(whole), "nprobe": 9}
    del edited[SEAL]
    (index / versions.name_of(2)).write_text(json.dumps(edited))  # by hand
    (problem,) = problems(index)
    assert problem.startswith(f"{versions.name_of(2)} is damaged, and {versions.copy_of(2)} counts: ")
    again(made, index)
    assert (index / versions.name_of(2)).read_bytes() == whole
    (index / schema.FORMAT).unlink()
    assert problems(index)[0].startswith(f"{schema.FORMAT} is gone: ")


def test_files_that_do_not_fit_together_are_named(index: Path) -> None:
    """Each as its record says, and the record whole: what a fault in the program would leave."""
    store = LocalStore(index)
    state = versions.newest(store)
    assert state is not None
    for change, what in (({"base": 299}, "301 rows"), ({"removed": 3}, "vectors, and has"), ({"dim": 9}, "opened")):
        for name in (versions.name_of(2), versions.copy_of(2), contents.INDEX_RECORD):
            store.write_bytes(name, sealed.pack({**state.record, **change}))
        assert any("generation 2 " in problem for problem in problems(index)), what


def test_an_index_of_earlier_versions_is_exact_and_goes_on(made: Path, index: Path) -> None:
    """Without copies and without seals; its own file tells a damaged record."""
    shutil.rmtree(index / schema.COPIES)
    for name in (versions.name_of(1), versions.name_of(2), contents.INDEX_RECORD, schema.FORMAT):
        record = json.loads((index / name).read_bytes())
        del record[SEAL]
        (index / name).write_bytes((json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    assert problems(index) == []
    before, old = answers(index), (index / versions.name_of(2)).read_bytes()
    (index / versions.name_of(2)).write_bytes(old.replace(b'"nprobe": 0', b'"nprobe": 1'))
    assert len(problems(index)) == 1
    (index / versions.name_of(2)).write_bytes(old[:90])
    assert answers(index) == before
    (index / versions.name_of(2)).write_bytes(old)
    report = again(made, index)
    assert (report.kept, report.generation) == (302, 2)
    assert problems(index) == []
    assert answers(index) == before


def test_answers_of_a_query_are_checked(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers"
    cvjobs.query(str(made / "index"), str(made / "vectors"), out=str(out))
    assert here("verify", out).code == 0
    file = out / "data" / "neighbours.parquet"
    whole = file.read_bytes()
    for place in (10, len(whole) // 2, len(whole) - 20):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        (problem,) = cvjobs.verify(str(out)).problems
        assert problem == (
            "data/neighbours.parquet is damaged (its digest differs): the same `cvjobs query` writes it anew"
        )
    file.write_bytes(whole)
    (out / schema.FORMAT).write_bytes(b"")
    assert "format.json is damaged" in cvjobs.verify(str(out)).problems[0]
    cvjobs.query(str(made / "index"), str(made / "vectors"), out=str(out))
    assert here("verify", out).code == 0


def attack(root: Path, kind: str, count: int, seed: int, every: int = 1) -> Tally:
    """Flip bits of an index, each of which is verified and queried; after ``every`` one the same command follows."""
    index = built(root, kind, {"exact": 300, "ivf": 2000, "pq": 11_000}[kind])
    before, work, tally = answers(index), root / "work", Tally()
    for number, flip in enumerate(flips(index, count, seed, besides=("report.html", "summary.json", "lease"))):
        with flipped(flip):
            tally.count(flip, index, lambda: answers(index), before)
            if number % every:
                continue
            shutil.copytree(index, work)
        said(lambda: again(root, work))
        shutil.rmtree(work)
    assert tally.wrong == []
    assert answers(index) == before
    return tally


def test_no_flipped_bit_passes_that_changes_an_answer(tmp_path: Path) -> None:
    tally = attack(tmp_path, "exact", 20, 0, every=5)
    assert tally.passed == []


@pytest.mark.faults(minutes=5)
@pytest.mark.parametrize("kind", ["exact", "ivf", "pq"])
def test_two_thousand_flipped_bits_of_an_index(kind: str, tmp_path: Path) -> None:
    tally = attack(tmp_path, kind, 700, 1)
    print(kind, tally)
    assert tally.passed == []
