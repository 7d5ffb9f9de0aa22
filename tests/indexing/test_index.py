"""``cvjobs index`` as a user runs it: what it prints, what it leaves, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import embed, here, said, sentence
from vectors import Fake, clustered, exact, named

import cvjobs
from cvjobs.common.errors import JobFailed
from cvjobs.indexing.search.opened_index import open_index


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """Two thousand and five hundred vectors in three files."""
    fake = Fake(tmp_path / "vectors", 16)
    fake.put(named(clustered(2500, 16)))
    return fake


@pytest.mark.slow
def test_photos_are_embedded_and_indexed(photos: Path, tmp_path: Path) -> None:
    embed(photos, tmp_path / "vectors")
    done = here("index", tmp_path / "vectors", "-o", tmp_path / "index")
    assert done.code == 0, done
    assert said(done.err) == []
    assert "400 vectors of 48 numbers, exact (Flat)" in done.out
    assert "400 added, 0 changed, 0 removed, 0 kept" in done.out
    with open_index(str(tmp_path / "index")) as index:
        table = cvjobs.open(str(tmp_path / "vectors")).to_arrow()
        stored = np.stack(table["embedding"].to_numpy(zero_copy_only=False))
        scores, rows = index.search(stored[:20], 10)
        expected, _ = exact(stored, stored[:20], 10)
        assert np.abs(scores - expected).max() < 1e-5
        assert index.rows(rows[:, 0])["path"].to_pylist() == table["path"].to_pylist()[:20]
        assert index.generation.fingerprint == cvjobs.open(str(tmp_path / "vectors")).snapshot.fingerprint


def test_the_same_command_again_has_nothing_to_do(fake: Fake, tmp_path: Path) -> None:
    out = tmp_path / "index"
    first = json.loads(here("index", fake.out, "-o", out, "--json").out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("g*/*")}
    second = json.loads(here("index", fake.out, "-o", out, "--json").out)
    assert (first["added"], first["kept"], first["generation"]) == (2500, 0, 1)
    assert (second["added"], second["kept"], second["generation"]) == (0, 2500, 1)
    assert {path: path.stat().st_mtime_ns for path in out.glob("g*/*")} == before
    shown = json.loads(here("index", out, "--info", "--json").out)
    assert {**second, "seconds": shown["seconds"], "phases": {}} == shown


def test_what_is_no_embeddings_output_is_refused(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = sentence(here("index", tmp_path / "empty", "-o", tmp_path / "index"), 2)
    assert "holds no finished embeddings" in words
    cvjobs.index(str(fake.out), out=str(tmp_path / "index"))
    assert "holds an index" in sentence(here("index", tmp_path / "index", "-o", tmp_path / "other"), 2)
    assert "is missing" in sentence(here("index", fake.out), 2)
    assert "holds embeddings, no index" in sentence(here("index", fake.out, "--info"), 2)
    assert "holds no index" in sentence(here("index", tmp_path / "empty", "--info"), 2)


def test_an_output_of_something_else_is_refused(fake: Fake, photos: Path, tmp_path: Path) -> None:
    other = Fake(tmp_path / "other", 16)
    other.put(named(clustered(20, 16)))
    cvjobs.index(str(fake.out), out=str(tmp_path / "index"))
    assert "holds the index of" in sentence(here("index", other.out, "-o", tmp_path / "index"), 2)
    assert "holds images' results" in sentence(here("index", fake.out, "-o", other.out), 2)
    assert "holds an index" in sentence(embed(photos, tmp_path / "index"), 2)


def test_embeddings_without_a_vector_are_refused(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "vectors", 16)
    fake.put({})
    assert "holds no vector" in sentence(here("index", fake.out, "-o", tmp_path / "index"), 2)


def test_more_memory_than_allowed_is_refused_before_anything_is_written(fake: Fake, tmp_path: Path) -> None:
    ended = here("index", fake.out, "-o", tmp_path / "index", "--kind", "exact", "--max-memory", "100kB")
    assert "160 kB" in sentence(ended, 2)
    assert "100 kB" in ended.err
    assert not list((tmp_path / "index").glob("g*"))
    assert "is no size" in sentence(here("index", fake.out, "-o", tmp_path / "index", "--max-memory", "much"), 2)


def test_a_flipped_byte_is_refused(fake: Fake, tmp_path: Path) -> None:
    out = tmp_path / "index"
    cvjobs.index(str(fake.out), out=str(out))
    (file,) = out.glob("g*/index.faiss")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(JobFailed, match=r"sha256 differs\): `cvjobs index \S+/vectors -o \S+/index --rebuild`"):
        open_index(str(out))
    assert cvjobs.index(str(fake.out), out=str(out), rebuild=True).generation == 2
    open_index(str(out)).close()
