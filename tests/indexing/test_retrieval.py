"""Searching an index: exact by construction, whatever the vectors; ranges, blocks and rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vectors import Fake, Floats, clustered, exact, named

import cvjobs
from cvjobs.common.errors import WrongUse
from cvjobs.indexing import kinds
from cvjobs.indexing.search.opened_index import Index, open_index
from cvjobs.indexing.vectors import ahead, unit


def indexed(folder: Path, stored: Floats, **options: Any) -> Index:
    """The index of some vectors."""
    fake = Fake(folder / "vectors", stored.shape[1])
    fake.put(named(stored))
    cvjobs.index(str(fake.out), out=str(folder / "index"), **options)
    return open_index(str(folder / "index"))


def test_exact_search_is_exact(tmp_path: Path) -> None:
    stored, queries = clustered(3000, 24), clustered(50, 24, seed=1)
    with indexed(tmp_path, stored) as index:
        scores, rows = index.search(queries, 7)
        expected, order = exact(stored, queries, 7)
        assert scores.dtype == np.float32
        assert rows.dtype == np.int64
        assert np.abs(scores - expected).max() < 1e-5
        assert (rows == order).mean() > 0.99
        one, row = index.search(queries[:1], 7)
        assert (row == rows[:1]).all()
        assert np.allclose(one, scores[:1], atol=1e-6)


def test_fewer_vectors_than_neighbours(tmp_path: Path) -> None:
    with indexed(tmp_path, clustered(3, 8)) as index:
        scores, rows = index.search(clustered(2, 8, seed=1), 5)
        assert (rows[:, 3:] == -1).all()
        assert np.isnan(scores[:, 3:]).all()
        assert sorted(rows[0, :3]) == [0, 1, 2]
        assert (np.diff(scores[:, :3], axis=1) <= 0).all()
        assert index.search(np.zeros((0, 8), np.float32), 5)[1].shape == (0, 5)


def test_zero_tiny_and_huge_vectors(tmp_path: Path) -> None:
    stored = np.asarray([[0, 0], [1e-30, 0], [0, 1e30], [3, 4]], np.float32)
    with indexed(tmp_path, stored) as index:
        scores, rows = index.search(np.asarray([[0, 5e-31], [1, 0]], np.float32), 2)
        assert rows.tolist() == [[2, 3], [1, 3]]
        assert np.allclose(scores, [[1, 0.8], [1, 0.6]])
        _, vectors = next(index.blocks(10))
        assert np.allclose(np.linalg.norm(vectors, axis=1), [0, 1, 1, 1])


def test_ranges(tmp_path: Path) -> None:
    stored, queries = clustered(500, 8), clustered(20, 8, seed=1)
    with indexed(tmp_path, stored) as index:
        limits, scores, rows = index.within(queries, 0.9)
        cosines, order = exact(stored, queries, 500)
        for i in range(20):
            found = set(rows[limits[i] : limits[i + 1]].tolist())
            assert found == set(order[i][cosines[i] >= 0.9].tolist())
        assert scores.min() >= 0.9


def test_blocks_and_rows_cover_the_collection(tmp_path: Path) -> None:
    stored = clustered(500, 8)
    with indexed(tmp_path, stored) as index:
        pieces = list(index.blocks(64))
        assert max(len(positions) for positions, _ in pieces) <= 64
        positions = np.concatenate([positions for positions, _ in pieces])
        assert sorted(positions) == list(range(500))
        assert np.allclose(np.concatenate([v for _, v in pieces]), unit(stored)[positions], atol=1e-6)
        assert index.ids["row"].to_pylist() == list(range(500))
        assert index.rows([7, 3])["path"].to_pylist() == ["image000007.jpg", "image000003.jpg"]
        assert len(index) == 500


def test_queries_of_another_length_are_refused(tmp_path: Path) -> None:
    with indexed(tmp_path, clustered(5, 8)) as index, pytest.raises(WrongUse, match="of 8, not of 9"):
        index.search(np.ones((1, 9), np.float32), 1)


@pytest.mark.parametrize(
    ("text", "size"),
    [("400MB", 400_000_000), ("2GiB", 2**31), ("1.5 gb", 1_500_000_000), ("1024", 1024), ("64k", 64_000)],
)
def test_sizes(text: str, size: int) -> None:
    assert kinds.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "4XB", "-1GB", "0", "nan"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(WrongUse, match="is no size"):
        kinds.parse_size(text)


@pytest.mark.parametrize(
    ("count", "limit", "kind"),
    [
        (100, 10**9, "exact"),
        (200_000, 10**9, "exact"),
        (1_000_000, 10**9, "ivf"),
        (1_000_000, 4 * 10**8, "ivf"),
        (1_000_000, 10**8, "pq"),
        (150_000, 5 * 10**7, "ivf"),
    ],
)
def test_the_most_exact_kind_that_fits(count: int, limit: int, kind: str) -> None:
    chosen = kinds.choose("auto", count, 128, limit)
    assert chosen.name == kind
    assert chosen.memory <= limit


def test_what_fails_ahead_is_raised_where_it_is_used() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("no")

    made = ahead(items())
    assert next(made) == 1
    with pytest.raises(OSError, match="no"):
        next(made)
