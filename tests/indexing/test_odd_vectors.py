"""Vectors that are zero, equal, opposite or few: black images find each other, and no score exceeds 1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import odd_sizes
import pyarrow as pa
import pytest
from commands import here
from fuzzing import Seeds
from PIL import Image
from vectors import Fake, Floats, clustered, exact, named

import cvjobs
from cvjobs.common import rules
from cvjobs.dataset import schema, sealed
from cvjobs.indexing.search import duplicates
from cvjobs.indexing.search.opened_index import open_index

FEWEST = {"exact": 1, "ivf": 640, "pq": 11_000}


def built(tmp_path: Path, vectors: Floats, kind: Any = "exact") -> str:
    """An index of vectors by number."""
    fake = Fake(tmp_path / "vectors", vectors.shape[1])
    fake.put(named(vectors))
    cvjobs.index(fake.out, out=tmp_path / "index", kind=kind)
    return str(tmp_path / "index")


def expected(stored: Floats, queries: Floats, k: int) -> Floats:
    """The cosines, and those with a cosine of 1 between two zero vectors, best first."""
    cosines, order = exact(stored, queries, len(stored))
    zero = ~np.any(queries, axis=1, keepdims=True) & ~np.asarray(stored.any(axis=1))[order]
    return np.asarray(-np.sort(-np.where(zero, 1, cosines), axis=1)[:, :k], np.float32)


@pytest.mark.parametrize("kind", ["exact", "ivf", pytest.param("pq", marks=pytest.mark.faults)])
def test_black_images_find_each_other(tmp_path: Path, kind: str) -> None:
    vectors = clustered(max(FEWEST[kind], 50), 8)
    black = [3, 17, 40]
    vectors[black] = 0
    with open_index(built(tmp_path, vectors, kind)) as index:
        scores, rows = index.search(np.stack([vectors[3], vectors[0]]), 5)
        assert rows[0, :3].tolist() == black
        assert scores[0].tolist() == [1, 1, 1, 0, 0]
        assert not np.signbit(scores[0]).any()
        assert not set(rows[0, 3:]) & {*black, -1}
        assert not set(rows[1]) & set(black)
        for least, found in ((1.0, black), (0.5, black), (0.0, list(range(len(vectors))))):
            limits, cosines, near = index.within(vectors[[3]], least)
            if kind == "exact" or least:
                assert sorted(near.tolist()) == found
            assert limits.tolist() == [0, len(near)]
            assert {cosine for cosine, row in zip(cosines, near, strict=True) if row in black} == {1.0}
        groups = duplicates.find(index, 0.9999).rows.to_pylist()
        assert [(row["path"], row["score"]) for row in groups if row["score"] == 1.0][:3] == [
            (f"image{number:06}.jpg", 1.0) for number in black
        ]


def test_a_black_query_leaves_out_itself_and_what_is_gone(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "vectors", 4)
    images = named(clustered(20, 4))
    fake.put(images | dict.fromkeys(["black", "dark", "night", "pitch"], np.zeros(4, np.float32)))
    cvjobs.index(fake.out, out=tmp_path / "index", kind="exact")
    fake.put({"late": np.zeros(4, np.float32)}, gone=("dark",))
    cvjobs.index(fake.out, out=tmp_path / "index")
    answer = cvjobs.query(tmp_path / "index", fake.out, k=4, exclude_self=True).to_arrow().to_pylist()
    found = {row["path"]: row["score"] for row in answer if row["query"] == "black"}
    assert list(found)[:3] == ["night", "pitch", "late"]
    assert list(found.values()) == [1.0, 1.0, 1.0, 0.0]
    near = cvjobs.query(tmp_path / "index", fake.out, k=9, min_score=0.5).to_arrow()
    assert near.filter(pa.compute.equal(near["query"], "late"))["path"].to_pylist() == [
        "black",
        "night",
        "pitch",
        "late",
    ]


def test_scores_never_exceed_one(tmp_path: Path) -> None:
    vectors = np.tile(np.random.default_rng(0).normal(size=(1, 333)), (300, 1)).astype(np.float32)
    vectors[100:] *= np.random.default_rng(1).uniform(0.1, 9, (200, 1)).astype(np.float32)
    vectors[200:] *= -1
    with open_index(built(tmp_path, vectors)) as index:
        for scores in (index.search(vectors, 300)[0], index.within(vectors[::50], -1)[1]):
            assert scores.max() == pytest.approx(1)
            assert scores.max() <= 1
            assert scores.min() >= -1
        assert max(duplicates.find(index, 0.99).rows["score"].to_pylist()) == 1


@pytest.mark.parametrize("kind", ["exact", "ivf", pytest.param("pq", marks=pytest.mark.faults)])
@pytest.mark.parametrize("value", [0, 1])
def test_an_index_of_equal_vectors(tmp_path: Path, kind: str, value: float) -> None:
    vectors = np.full((FEWEST[kind], 8), value, np.float32)
    place = built(tmp_path, vectors, kind)
    with open_index(place) as index:
        scores, rows = index.search(np.concatenate([vectors[:1], np.eye(8, dtype=np.float32)[:1]]), 3)
        there = rows[0] >= 0
        assert there.sum() == min(3, len(vectors))
        assert scores[0, there] == pytest.approx(np.ones(there.sum()), abs=5e-4)
        assert np.isnan(scores[0, ~there]).all()
        groups = duplicates.find(index, 0.99).rows
        assert groups.num_rows == (len(vectors) if len(vectors) > 1 else 0)
    assert "nan" not in (Path(place) / "report.html").read_text().lower()


def test_odd_vectors(seeds: Seeds, tmp_path: Path) -> None:
    for seed in seeds(3):
        random = np.random.default_rng(seed)
        dim, count = int(random.integers(1, 9)), int(random.choice([1, 2, 3, 40]))
        stored = odd_sizes.vectors(random, count, dim)
        queries = np.concatenate([odd_sizes.vectors(random, 3, dim), stored[:1]])
        k = int(random.choice([1, 2, count, count + 5]))
        with open_index(built(tmp_path / str(seed), stored)) as index:
            scores, rows = index.search(queries, k)
            wanted = expected(stored, queries, k)
            np.testing.assert_allclose(scores[:, : wanted.shape[1]], wanted, atol=1e-5)
            assert np.isnan(scores[:, wanted.shape[1] :]).all()
            for query, near in enumerate(rows.tolist()):
                kept = [row for row in near if row >= 0]
                assert len(set(kept)) == len(kept) == min(k, count), query
            least = float(random.choice([-1, 0, 0.5, 1]))
            groups = duplicates.find(index, least).rows
            if len(groups):
                assert max(groups["score"].to_pylist()) <= 1
            zero = int((~stored.any(axis=1)).sum())
            assert zero < 2 or groups.num_rows >= zero


@pytest.mark.faults(minutes=0.2)
def test_black_photos_from_the_command_line(tmp_path: Path) -> None:
    for name, colour in {"black.png": 0, "dark.png": 0, "grey.png": 90}.items():
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), (colour,) * 3).save(tmp_path / "photos" / name)
    cvjobs.embed(tmp_path / "photos", tmp_path / "vectors", model="thumbnail/4")
    cvjobs.index(tmp_path / "vectors", out=tmp_path / "index")
    ended = here("query", tmp_path / "index", tmp_path / "photos/black.png", "-k", 3)
    assert sorted(line.split("\t")[2:] for line in ended.out.splitlines()[1:]) == [
        ["black.png", "1.0000"],
        ["dark.png", "1.0000"],
        ["grey.png", "0.0000"],
    ]
    found = json.loads(here("query", tmp_path / "index", "--duplicates", "--json").out)
    assert (found["groups"], found["members"], found["exact"]) == (1, 2, 1)


@pytest.mark.parametrize("began", ["by another release", "with a damaged signature"])
def test_answers_of_before_keep_their_scores(tmp_path: Path, began: str) -> None:
    """Rounding adds to some cosines: what an output of before said of the same index, it says again."""
    vectors = clustered(400, 64)
    vectors[5], vectors[9] = 0, -0.0
    index = built(tmp_path, vectors)
    asked, out = str(tmp_path / "vectors"), tmp_path / "out"
    new = cvjobs.query(index, asked, k=2, out=str(out)).to_arrow()
    said = sealed.unpack((out / schema.FORMAT).read_bytes())
    assert said is not None
    assert said["scores"] == rules.SCORES
    assert max(new["score"].to_pylist()) == 1.0
    if began == "with a damaged signature":
        (out / schema.FORMAT).write_bytes(b"")
    else:
        (out / schema.FORMAT).write_bytes(sealed.pack({name: said[name] for name in ("format", "version", "source")}))
    for _ in range(2):
        old = cvjobs.query(index, asked, k=2, out=str(out)).to_arrow()
        assert old["query"] == new["query"]
        scores = dict(zip(old["query"].to_pylist()[::2], old["score"].to_pylist()[::2], strict=True))
        assert max(scores.values()) > 1.0
        assert scores["image000005.jpg"] == scores["image000009.jpg"] == 0
        assert np.abs(np.array(list(scores.values()))[:5] - 1).max() < 1e-6
    assert cvjobs.query(index, duplicates=True, min_score=0.9999, out=str(out)).groups == 0
    assert cvjobs.query(index, duplicates=True, min_score=0.9999, out=str(tmp_path / "fresh")).groups == 1
