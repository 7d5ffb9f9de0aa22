"""An index that follows its embeddings: after any changes it answers as one built from scratch."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from buckets import made
from commands import CLI, here, kill, run, said, sentence, some, started, until
from vectors import Fake, Floats, clustered, exact, named

import cvjobs
from cvjobs.common import devices
from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.indexing.search.opened_index import open_index

pytestmark = pytest.mark.slow

DIM = 16
COUNTS = {"exact": 3000, "ivf": 3000, "pq": 11_000}


def indexed(fake: Fake, out: Path, **options: Any) -> Any:
    return cvjobs.index(str(fake.out), out=str(out), **options)


def neighbours(out: Path, queries: Floats, k: int) -> tuple[Floats, list[list[str]]]:
    """The scores and names of the nearest."""
    with open_index(str(out)) as index:
        scores, rows = index.search(queries, k)
        return scores, [index.rows(own[own >= 0])["path"].to_pylist() for own in rows]


def check(fake: Fake, out: Path, least: float) -> None:
    """The answers are those of exact search over what the embeddings hold now, and nothing else is answered."""
    names, stored = list(fake.vectors), np.stack(list(fake.vectors.values()))
    queries = stored[:: len(stored) // 100]
    scores, found = neighbours(out, queries, 10)
    expected, order = exact(stored, queries, 10)
    hits = [len({names[i] for i in row} & set(own)) for row, own in zip(order, found, strict=True)]
    assert np.mean(hits) >= least * 10
    assert {name for own in found for name in own} <= set(names)
    assert np.abs(scores[:, 0] - expected[:, 0]).max() < (1e-5 if least == 1 else 0.3)
    with open_index(str(out)) as index:
        assert sorted(index.ids["path"].to_pylist()) == sorted(names)
        covered = np.concatenate([rows for rows, _ in index.blocks(500)])
        assert sorted(covered) == sorted(index.ids["row"].to_pylist())
        limits, _, rows = index.within(stored[:5], 0.99)
        assert set(rows.tolist()) <= set(covered.tolist())
        assert (np.diff(limits) >= 1).mean() >= 0.8


@pytest.mark.parametrize("kind", ["exact", "ivf", pytest.param("pq", marks=pytest.mark.faults(minutes=0.2))])
def test_all_images_go_and_others_come(kind: str, tmp_path: Path) -> None:
    fake, out = Fake(tmp_path / "vectors", DIM), tmp_path / "index"
    before = named(clustered(COUNTS[kind], DIM))
    fake.put(before)
    indexed(fake, out, kind=kind)
    fake.put({}, tuple(before))
    report = indexed(fake, out)
    assert (report.count, report.removed, report.kept, report.rebuilt) == (0, len(before), 0, False)
    assert indexed(fake, out).generation == report.generation
    assert "holds no vector" in sentence(here("index", fake.out, "-o", out, "--rebuild"), 2)
    with open_index(str(out)) as index:
        scores, rows = index.search(clustered(3, DIM), 5)
        assert (rows == -1).all()
        assert np.isnan(scores).all()
        assert not list(index.blocks(100))
        assert index.ids.num_rows == 0
    assert cvjobs.query(str(out), duplicates=True).groups == 0
    again = Fake(tmp_path / "asked", DIM)
    again.put(named(clustered(4, DIM)))
    assert "no neighbour for 4 queries" in here("query", out, again.out).err
    assert here("index", out, "--info").code == 0
    assert here("verify", out).code == 0
    fake.put(named(clustered(400, DIM, seed=1)))
    assert indexed(fake, out).count == 400
    check(fake, out, 0.6)


@pytest.mark.parametrize("kind", ["exact", "ivf", pytest.param("pq", marks=pytest.mark.faults(minutes=0.2))])
def test_a_week(kind: str, tmp_path: Path) -> None:
    count = COUNTS[kind]
    fake, out = Fake(tmp_path / "vectors", DIM), tmp_path / "index"
    fake.put(named(clustered(count, DIM)))
    built = indexed(fake, out, kind=kind, target_recall=0.9, max_memory="4MB")
    assert (built.kind, built.added, built.rebuilt) == (kind, count, True)
    assert built.recall >= 0.9
    least = 1.0 if kind == "exact" else 0.85
    check(fake, out, least)
    base = set(out.glob("g000001-*/*"))
    for day in range(1, 4):
        names = list(fake.vectors)
        new = named(clustered(50, DIM, seed=day), first=count * (day + 1))
        changed = dict(zip(names[day * 100 : day * 100 + 30], clustered(30, DIM, seed=50 + day), strict=True))
        fake.put({**new, **changed}, gone=tuple(names[-20:]) if day != 2 else tuple(names[5:25]))
        done = indexed(fake, out, kind=kind, target_recall=0.9, max_memory="4MB")
        assert (done.added, done.changed, done.removed, done.rebuilt) == (50, 30, 20, False)
        assert done.kept == len(fake.vectors) - 80
        check(fake, out, least)
    assert base <= set(out.glob("g000001-*/*"))
    assert indexed(fake, out, target_recall=0.9).generation == 4
    fake.put({}, gone=tuple(list(fake.vectors)[: count // 5]))
    rebuilt = indexed(fake, out, target_recall=0.9)
    assert (rebuilt.rebuilt, rebuilt.added) == (True, len(fake.vectors))
    check(fake, out, least)


def test_an_update_with_only_removals_and_a_touched_image(tmp_path: Path) -> None:
    fake, out = Fake(tmp_path / "vectors", DIM), tmp_path / "index"
    fake.put(named(clustered(500, DIM)))
    indexed(fake, out)
    fake.publish()  # the same contents in new files
    touched = indexed(fake, out)
    assert (touched.added, touched.changed, touched.removed, touched.kept) == (0, 0, 0, 500)
    assert len(list(out.glob("g*"))) == 1
    fake.put({}, gone=("image000007.jpg",))
    assert indexed(fake, out).removed == 1
    fake.put({"image000007.jpg": clustered(500, DIM)[7]})
    back = indexed(fake, out)
    assert (back.added, back.kept) == (1, 499)
    check(fake, out, 1.0)


def test_another_model_or_a_stricter_wish_rebuilds(tmp_path: Path) -> None:
    fake, out = Fake(tmp_path / "vectors", DIM), tmp_path / "index"
    fake.put(named(clustered(1500, DIM)))
    assert indexed(fake, out, kind="ivf", target_recall=0.5).rebuilt
    assert not indexed(fake, out, kind="ivf", target_recall=0.5).rebuilt
    stricter = indexed(fake, out, kind="ivf", target_recall=0.999)
    assert stricter.rebuilt
    assert stricter.recall >= 0.999
    assert indexed(fake, out, kind="exact").rebuilt
    fake.fingerprint = "e" * 64
    fake.publish()
    assert indexed(fake, out).rebuilt


def test_rollback(tmp_path: Path) -> None:
    fake, out = Fake(tmp_path / "vectors", DIM), tmp_path / "index"
    fake.put(named(clustered(300, DIM)))
    indexed(fake, out)
    assert "keeps no generation before" in sentence(here("index", out, "--rollback"), 2)
    fake.put(named(clustered(20, DIM, seed=3), first=300))
    assert indexed(fake, out).count == 320
    (file,) = out.glob("g000002-*/delta.faiss")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(JobFailed, match=r"has 1,\d+ bytes instead of"):
        open_index(str(out))
    back = json.loads(here("index", out, "--rollback", "--json").out)
    assert (back["generation"], back["count"]) == (3, 300)
    with open_index(str(out)) as index:
        assert len(index) == 300
    assert indexed(fake, out).added == 20
    check(fake, out, 1.0)
    with pytest.raises(WrongUse, match="two commands"):
        cvjobs.index(str(out), info=True, rollback=True)


def test_a_generation_that_came_back_is_checked_before_its_page_is_made(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, vectors, out = some(photos, tmp_path / "photos", 12), tmp_path / "vectors", tmp_path / "index"
    cvjobs.embed(source, vectors, model="thumbnail/4")
    cvjobs.index(vectors, out=out)
    cvjobs.index(vectors, out=out, rebuild=True)
    (file,) = out.glob("g000001-*/index.faiss")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert cvjobs.index(out, rollback=True).generation == 3
    assert "this index has no report.html (DamagedIndex: " in capsys.readouterr().err


def test_embeddings_that_were_made_anew_are_no_known_ones(tmp_path: Path) -> None:
    out = tmp_path / "index"
    for first in (0, 1000):  # the first snapshot of a folder, and of another one that took its place
        fake = Fake(tmp_path / "vectors", DIM)
        fake.put(named(clustered(300, DIM, seed=first), first=first))
        indexed(fake, out)
        check(fake, out, 1.0)
        assert indexed(fake, out).kept == 300
        shutil.rmtree(fake.out)


def test_an_index_is_updated_where_little_memory_is_free_and_a_new_base_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, out = Fake(tmp_path / "vectors", DIM), tmp_path / "index"
    fake.put(named(clustered(300, DIM)))
    indexed(fake, out)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    assert indexed(fake, out).kept == 300
    fake.put(named(clustered(20, DIM, seed=3), first=300))
    assert indexed(fake, out).added == 20
    with pytest.raises(WrongUse, match="allow more"):
        indexed(fake, out, rebuild=True)
    assert indexed(fake, out).generation == 2


def test_three_generations_are_kept(tmp_path: Path) -> None:
    fake, out = Fake(tmp_path / "vectors", DIM), tmp_path / "index"
    fake.put(named(clustered(300, DIM)))
    for _ in range(5):
        indexed(fake, out, rebuild=True)
    assert sorted(path.name[:7] for path in out.glob("g*")) == ["g000003", "g000004", "g000005"]
    (out / "g000004-deadbeef").mkdir()
    (out / "g000004-deadbeef" / "index.faiss").write_bytes(b"of a dead run")
    indexed(fake, out, rebuild=True)
    assert sorted(path.name[:7] for path in out.glob("g*")) == ["g000004", "g000005", "g000006"]


def test_an_unreachable_recall_is_refused_and_the_generation_before_stays(tmp_path: Path) -> None:
    fake, out = Fake(tmp_path / "vectors", 8), tmp_path / "index"
    random = np.random.default_rng(0)
    # So close together that half floats cannot tell them apart.
    fake.put(named(np.asarray(1 + 1e-2 * random.normal(size=(1000, 8)), np.float32)))
    indexed(fake, out)
    words = sentence(here("index", fake.out, "-o", out, "--kind", "ivf", "--target-recall", "1"), 1)
    assert "take --kind exact" in words
    with open_index(str(out)) as index:
        assert index.generation.kind == "exact"
    indexed(fake, out, rebuild=True)
    assert len(list(out.glob("g*"))) == 2


@pytest.mark.parametrize(("kind", "count"), [("ivf", 639), ("pq", 10_999)])
def test_too_few_vectors_for_a_kind(kind: str, count: int, tmp_path: Path) -> None:
    fake = Fake(tmp_path / "vectors", 4)
    fake.put(named(clustered(count, 4)))
    assert "too few" in sentence(here("index", fake.out, "-o", tmp_path / "index", "--kind", kind), 2)


def test_identical_vectors(tmp_path: Path) -> None:
    fake, out = Fake(tmp_path / "vectors", 8), tmp_path / "index"
    fake.put(named(np.ones((2000, 8), np.float32)))
    done = indexed(fake, out, kind="ivf")
    assert done.recall == 1.0
    scores, _ = neighbours(out, np.ones((1, 8), np.float32), 10)
    assert np.allclose(scores, 1, atol=1e-3)


@pytest.mark.ray
@pytest.mark.skipif(devices.cpus() < 2, reason="two workers need two cores")
@pytest.mark.parametrize("kind", ["ivf", "pq"])
@pytest.mark.faults
def test_workers_build_the_same_index(kind: str, tmp_path: Path) -> None:
    fake = Fake(tmp_path / "vectors", DIM)
    fake.put(named(clustered(12_000, DIM)))
    options = ("--kind", kind, "--target-recall", "0.8", "--max-memory", "1MB", "--json")
    alone = run("index", fake.out, "-o", tmp_path / "alone", *options)
    spread = run("index", fake.out, "-o", tmp_path / "spread", *options, "--workers", "2")
    assert (alone.code, spread.code, spread.left) == (0, 0, []), spread
    assert said(spread.err) == []
    queries = clustered(200, DIM)
    scores, found = neighbours(tmp_path / "alone", queries, 10)
    others, same = neighbours(tmp_path / "spread", queries, 10)
    assert np.allclose(scores, others, atol=1e-6, equal_nan=True)
    assert np.mean([a == b for a, b in zip(found, same, strict=True)]) > 0.99


@pytest.mark.faults
@pytest.mark.parametrize("moment", ["trained.faiss", "lists.ivfdata", "vectors.f16"])
def test_kill_9_while_building(moment: str, tmp_path: Path) -> None:
    fake, out = Fake(tmp_path / "vectors", DIM), tmp_path / "index"
    fake.put(named(clustered(12_000, DIM)))
    indexed(fake, out)
    words = ["index", str(fake.out), "-o", str(out), "--kind", "pq", "--target-recall", "0.8", "--rebuild"]
    with started([*CLI, *words]) as process:
        until(lambda: list(out.glob(f"g000002-*/**/{moment}")) or process.poll() is not None)
        kill(process, signal.SIGKILL)
    assert cvjobs.verify(str(out)).exit_code == 0
    with open_index(str(out)) as index:
        assert (index.generation.number, index.generation.kind, len(index)) == (1, "exact", 12_000)
    done = run(*words[:-1], "--json")
    assert done.code == 0, done
    assert json.loads(done.out)["kind"] == "pq"
    assert len(list(out.glob("g*"))) == 2
    assert not list(out.glob("**/.tmp-*"))


def test_a_second_writer_is_refused_with_the_holder_named(tmp_path: Path) -> None:
    fake, out = Fake(tmp_path / "vectors", DIM), tmp_path / "index"
    fake.put(named(clustered(12_000, DIM)))
    with started([*CLI, "index", str(fake.out), "-o", str(out), "--kind", "pq", "--target-recall", "0.5"]) as process:
        until(lambda: list(out.glob("g000001-*/ids.parquet")))
        process.send_signal(signal.SIGSTOP)  # it holds the index until the second one is there
        assert f"held by process {process.pid}" in sentence(here("index", fake.out, "-o", out), 5)


def test_an_index_in_a_bucket(s3: str, tmp_path: Path) -> None:
    bucket = made(s3, "indexes")
    fake = Fake(tmp_path / "vectors", DIM)
    fake.put(named(clustered(3000, DIM)))
    place, options = bucket.url("one"), (f"endpoint={s3}",)
    for kind in ("ivf", "exact"):
        done = cvjobs.index(str(fake.out), out=place, kind=kind, target_recall=0.9, storage_option=options)
        assert (done.kind, done.count) == (kind, 3000)
        fake.put(named(clustered(30, DIM, seed=5), first=len(fake.vectors) + 10_000))
        assert cvjobs.index(str(fake.out), out=place, target_recall=0.9, storage_option=options).added == 30
        with open_index(place, bucket.settings) as index:
            assert len(index) == 3030
            assert index.search(clustered(5, DIM), 3)[1].shape == (5, 3)
        fake.put({}, gone=tuple(list(fake.vectors)[-30:]))
