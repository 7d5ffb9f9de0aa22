"""Groups of near-duplicates: components as a plain search finds them, whole groups, the image to keep first."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import here, sentence, some
from hypothesis import given
from hypothesis import strategies as st
from page_parser import harmless
from PIL import Image
from vectors import Fake, Floats, clustered, named

import cvjobs
from cvjobs.dataset import schema, sealed
from cvjobs.indexing.search import duplicates
from cvjobs.indexing.search.answers import Duplicates
from cvjobs.indexing.search.components import Components
from cvjobs.indexing.search.duplicates import NEAR, find
from cvjobs.indexing.search.opened_index import open_index


class Sized(Fake):
    """Images of their own contents and sizes: ``same`` says whose bytes one has, ``pixels`` its width."""

    def __init__(self, out: Path, dim: int, same: dict[str, str], pixels: dict[str, int]) -> None:
        super().__init__(out, dim)
        self.same, self.pixels = same, pixels

    def table(self, names: list[str]) -> pa.Table:
        table = super().table(names)
        contents = [hashlib.md5(self.same.get(name, name).encode()).digest() for name in names]
        columns = {
            "content_hash": pa.array(contents, schema.ID),
            "width": pa.array([self.pixels.get(name, 1) for name in names], pa.int32()),
        }
        for name, column in columns.items():
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
        return table


def grouped(
    tmp_path: Path,
    vectors: dict[str, Floats],
    min_score: float,
    same: dict[str, str] | None = None,
    pixels: dict[str, int] | None = None,
) -> pa.Table:
    """The rows of the groups among made-up images."""
    dim = len(next(iter(vectors.values())))
    fake = Sized(tmp_path / "vectors", dim, same or {}, pixels or {})
    fake.put(vectors)
    cvjobs.index(str(fake.out), out=str(tmp_path / "index"), kind="exact")
    with open_index(str(tmp_path / "index")) as index:
        found = find(index, min_score)
        assert index.rows(found.positions)["path"].to_pylist() == found.rows["path"].to_pylist()
        return found.rows


def sets(rows: pa.Table) -> list[set[str]]:
    """The names of each group, in the order of the groups."""
    groups: dict[int, set[str]] = {}
    for row in rows.to_pylist():
        groups.setdefault(row["group"], set()).add(row["path"])
    assert list(groups) == list(range(len(groups)))
    return list(groups.values())


def plainly(vectors: dict[str, Floats], min_score: float) -> list[set[str]]:
    """The groups by a search from image to image."""
    names = list(vectors)
    matrix = np.stack([vectors[name].astype(np.float64) for name in names])
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    close = matrix @ matrix.T >= min_score
    left, groups = set(range(len(names))), []
    while left:
        front, group = {min(left)}, set()
        while front:
            group |= front
            front = {int(j) for i in front for j in np.flatnonzero(close[i])} - group
        left -= group
        if len(group) > 1:
            groups.append({names[i] for i in group})
    return groups


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))))
def test_components_are_those_of_a_plain_search(edges: list[tuple[int, int]]) -> None:
    found = Components(31)
    half = len(edges) // 2
    for some_edges in (edges[:half], edges[half:]):
        pairs = np.array(some_edges, np.int64).reshape(-1, 2)
        found.unite(pairs[:, 0], pairs[:, 1])
    expected = list(range(31))
    for _ in range(31):
        for left, right in edges:
            expected[left] = expected[right] = min(expected[left], expected[right])
    assert found.all().tolist() == expected


@pytest.mark.parametrize("min_score", [0.9, 0.97, 0.995])
def test_groups_are_those_of_a_plain_search(tmp_path: Path, min_score: float) -> None:
    vectors = named(clustered(600, 6, clusters=60))
    rows = grouped(tmp_path, vectors, min_score)
    expected = plainly(vectors, min_score)
    assert len(expected) > 3
    found = sets(rows)
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    assert [len(group) for group in found] == sorted(map(len, expected), reverse=True)
    for group, members in enumerate(found):
        table = rows.filter(pa.array(rows["group"].to_numpy() == group)).to_pylist()
        assert table[0]["path"] == min(members), "of equal sizes the first path is kept"
        assert table[0]["exact"]
        scores = [row["score"] for row in table]
        assert scores == sorted(scores, reverse=True)
        first = vectors[table[0]["path"]]
        for row in table:
            other = vectors[row["path"]]
            cosine = first @ other / np.linalg.norm(first) / np.linalg.norm(other)
            assert abs(cosine - row["score"]) < 1e-5


def test_a_group_larger_than_any_neighbourhood_comes_out_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    near = np.ones((20 * NEAR, 8)) + 0.01 * random.normal(size=(20 * NEAR, 8))
    apart = random.normal(size=(50, 8))
    apart[:, 0] -= 10
    vectors = named(np.concatenate([near, apart]).astype(np.float32))
    found = sets(grouped(tmp_path, vectors, 0.999))
    assert found[0] == set(list(vectors)[: 20 * NEAR])
    assert sorted(map(sorted, found)) == sorted(map(sorted, plainly(vectors, 0.999)))


def test_ten_thousand_copies_are_one_group(tmp_path: Path) -> None:
    copies = np.tile(np.array([1, 2, 3, 4], np.float32), (10_000, 1))
    vectors = named(copies)
    names = list(vectors)
    rows = grouped(tmp_path, vectors, 0.98, same=dict.fromkeys(names[:6000], "a"))
    assert sets(rows) == [set(names)]
    assert rows["exact"].to_pylist() == [True] * 6000 + [False] * 4000
    assert set(rows["score"].to_pylist()) <= {1.0, float(rows["score"][9999].as_py())}


def test_the_same_bytes_are_duplicates_whatever_their_vectors(tmp_path: Path) -> None:
    vectors = {name: np.eye(4, dtype=np.float32)[i] for i, name in enumerate(["a", "b", "c", "d"])}
    vectors["black"] = vectors["dark"] = np.zeros(4, np.float32)
    rows = grouped(tmp_path, vectors, 0.9, same={"c": "a"}, pixels={"c": 9})
    assert [(row["path"], row["exact"], row["score"]) for row in rows.to_pylist()] == [
        ("c", True, 1.0),
        ("a", True, 1.0),
        ("black", True, 1.0),
        ("dark", False, 1.0),
    ]


def test_the_one_with_the_most_pixels_comes_first(tmp_path: Path) -> None:
    vectors = {name: np.array([1, 1, i / 100], np.float32) for i, name in enumerate(["a", "b", "c"])}
    rows = grouped(tmp_path, vectors, 0.9, pixels={"a": 10, "b": 30, "c": 20})
    assert rows["path"][0].as_py() == "b"
    assert rows["width"].to_pylist()[0] == 30
    assert set(rows["path"].to_pylist()) == {"a", "b", "c"}


def test_no_duplicates_are_no_groups(tmp_path: Path) -> None:
    assert sets(grouped(tmp_path, named(np.eye(5, dtype=np.float32)), 0.98)) == []


# The command


@pytest.mark.slow
def test_the_command_lists_groups_of_photos(photos: Path, tmp_path: Path) -> None:
    folder = some(photos, tmp_path / "photos", 30)
    images = sorted(folder.rglob("*.jpg"))
    shutil.copy2(images[0], folder / "copy.jpg")
    with Image.open(images[1]) as image:
        image.resize((128, 96)).save(folder / "large.png")
        image.save(folder / "again.jpg", quality=60)
    cvjobs.embed(str(folder), str(tmp_path / "vectors"), model="thumbnail/4")
    cvjobs.index(str(tmp_path / "vectors"), out=str(tmp_path / "index"))
    words = ["--duplicates", "--min-score", "0.999"]
    ended = here("query", tmp_path / "index", *words, "-o", tmp_path / "out", "--html", tmp_path / "page.html")
    assert ended.code == 0, ended
    assert "2 groups of 5 images that score at least 0.999 among 33 images" in ended.out
    assert "1 exact copy," in ended.out
    rows = pq.read_table(tmp_path / "out/data/duplicates.parquet").to_pylist()
    names = [str(image.relative_to(folder)) for image in images]
    assert rows[0]["path"] == "large.png"
    assert {row["path"] for row in rows[:3]} == {"large.png", "again.jpg", names[1]}
    assert [row["path"] for row in rows[3:]] == sorted(["copy.jpg", names[0]])
    assert [row["exact"] for row in rows] == [True, False, False, True, True]
    page = harmless((tmp_path / "page.html").read_text())
    assert len([tag for tag, _ in page.elements if tag == "img"]) == 5
    assert {"keep", "exact"} <= set(page.text)
    plain = here("query", tmp_path / "index", *words)
    assert plain.out.splitlines()[1].split("\t")[:4] == ["0", "large.png", "1.0000", "true"]
    found = json.loads(here("query", tmp_path / "index", *words, "--json").out)
    assert (found["groups"], found["members"], found["exact"]) == (2, 5, 1)
    assert found["surplus"] == sum(row["bytes"] for row in (rows[1], rows[2], rows[4]))


@pytest.mark.slow
def test_a_page_of_no_duplicates(photos: Path, tmp_path: Path) -> None:
    some(photos, tmp_path / "few", 3)
    cvjobs.embed(tmp_path / "few", tmp_path / "vectors", model="thumbnail/4")
    cvjobs.index(tmp_path / "vectors", out=tmp_path / "index")
    found = cvjobs.query(tmp_path / "index", duplicates=True, min_score=1.0, html=tmp_path / "page.html")
    assert found.groups == 0
    assert "No near-duplicates" in harmless((tmp_path / "page.html").read_text()).text


def test_a_folder_of_neighbours_may_become_one_of_duplicates(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "vectors", 4)
    fake.put(named(clustered(50, 4)))
    cvjobs.index(str(fake.out), out=str(tmp_path / "index"))
    index, out = str(tmp_path / "index"), str(tmp_path / "out")
    cvjobs.query(index, str(fake.out), out=out)
    cvjobs.query(index, duplicates=True, min_score=0.9, out=out)
    assert [path.name for path in (tmp_path / "out/data").iterdir()] == ["duplicates.parquet"]
    assert "holds an index: choose another -o" in sentence(here("query", index, "--duplicates", "-o", index), 2)


# The score that nobody gives


def photos_and_copies(
    count: int, copies: int, noise: float, dim: int = 12, each: int = 1, *, around: int = 0, spread: float = 1
) -> Floats:
    """Vectors of unrelated images around a common direction, and behind them of altered copies of the first."""
    random = np.random.default_rng(3 + around)
    apart = spread * random.normal(size=(count, dim)) + 3 * np.eye(dim)[around]
    near = np.repeat(apart[:copies], each, axis=0)
    length = np.linalg.norm(near, axis=1, keepdims=True)
    return np.concatenate([apart, near + noise * length * random.normal(size=near.shape)]).astype(np.float32)


def answered(tmp_path: Path, vectors: Floats, **options: Any) -> Duplicates:
    fake = Fake(tmp_path / "vectors", vectors.shape[1])
    fake.put(named(vectors))
    cvjobs.index(str(fake.out), out=str(tmp_path / "index"), kind="exact")
    found = cvjobs.query(str(tmp_path / "index"), duplicates=True, **options)
    assert isinstance(found, Duplicates)
    return found


def wrong_and_found(found: Duplicates, vectors: Floats, origins: Iterable[int]) -> tuple[int, int]:
    """How many groups join unrelated images, and how many images are in the others."""
    origin = dict(zip(named(vectors), origins, strict=True))
    sizes: list[tuple[int, int]] = []
    for group in sets(found.to_arrow()):
        sizes.append((len({origin[name] for name in group}), len(group)))
    return sum(kinds > 1 for kinds, _ in sizes), sum(size for kinds, size in sizes if kinds == 1)


@pytest.mark.parametrize(("copies", "each"), [(0, 1), (40, 1), (400, 1), (60, 4)])
def test_the_measured_score_finds_altered_copies_and_hardly_else(tmp_path: Path, copies: int, each: int) -> None:
    vectors = photos_and_copies(400, copies, 0.01, each=each)
    found = answered(tmp_path, vectors)
    wrong, right = wrong_and_found(found, vectors, [*range(400), *np.repeat(np.arange(copies), each).tolist()])
    assert wrong <= max(1, 0.03 * copies * each)
    assert right >= 0.95 * copies * (each + 1)
    assert found.score_from == "measured"
    assert f"{found.min_score:.7g}, measured on the collection (" in str(found)


@pytest.mark.parametrize(("photos", "cells"), [(300, 30), (1000, 60), (1000, 100), (500, 500)])
@pytest.mark.parametrize("copies", [0, 40])
def test_some_images_that_are_much_alike_disturb_no_others(
    tmp_path: Path, photos: int, cells: int, copies: int
) -> None:
    some = photos_and_copies(photos, copies, 0.01)
    others = photos_and_copies(cells, 0, 0, around=1, spread=0.1)
    vectors = np.concatenate([some, others])
    origins = [*range(photos), *range(copies), *range(-cells, 0)]
    wrong, right = wrong_and_found(answered(tmp_path, vectors), vectors, origins)
    assert wrong <= 2
    # Where half of the images are nearer to each other than copies are, no score has more.
    assert right >= (0.95 if cells < photos else 0.5) * 2 * copies


def test_the_measured_score_goes_with_the_collection(tmp_path: Path) -> None:
    scores = []
    for place, spread in (("wide", 1.0), ("narrow", 0.1)):
        vectors = photos_and_copies(300, 0, 0)
        vectors[:, 1:] *= spread
        scores.append(answered(tmp_path / place, vectors).min_score or 0)
    assert 1 - scores[0] > 20 * (1 - scores[1])


@pytest.mark.parametrize("count", [1, 2, 15])
def test_of_few_images_no_score_is_measured(tmp_path: Path, count: int) -> None:
    found = answered(tmp_path, photos_and_copies(count, 0, 0))
    assert (found.min_score, found.score_from, found.groups) == (0.98, "too few images", 0)


def test_of_equal_images_no_score_is_measured(tmp_path: Path) -> None:
    found = answered(tmp_path, np.tile(np.array([1, 2, 3], np.float32), (100, 1)))
    assert (found.min_score, found.groups, found.members) == (0.98, 1, 100)
    assert "too few images that differ (1)" in str(found)


def test_equal_images_do_not_hide_how_far_others_are(tmp_path: Path) -> None:
    vectors = photos_and_copies(200, 0, 0)
    alone = answered(tmp_path / "alone", vectors).min_score or 0
    many = np.concatenate([vectors, np.tile(vectors[:1], (40, 1))])
    assert abs((answered(tmp_path / "many", many).min_score or 0) - alone) < 0.002


def test_other_scores_are_counted_as_their_own_answers_do(tmp_path: Path) -> None:
    found = answered(tmp_path, photos_and_copies(200, 30, 0.03))
    assert len(found.thresholds) == 7
    assert [row["min_score"] for row in found.thresholds] == sorted(row["min_score"] for row in found.thresholds)
    for row in found.thresholds:
        other = cvjobs.query(str(tmp_path / "index"), duplicates=True, min_score=row["min_score"])
        assert isinstance(other, Duplicates)
        assert (row["groups"], row["images"]) == (other.groups, other.members)
        assert other.score_from == "option"


def test_of_many_images_other_scores_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = photos_and_copies(200, 30, 0.03)
    whole = answered(tmp_path / "whole", vectors)
    monkeypatch.setattr(duplicates, "TABLED", 229)
    page = tmp_path / "page.html"
    found = answered(tmp_path / "many", vectors, html=str(page))
    assert (found.min_score, found.groups, found.members) == (whole.min_score, whole.groups, whole.members)
    assert [row["groups"] for row in found.thresholds] == [found.groups]
    assert ("--min-score" in str(whole), "--min-score" in str(found)) == (True, False)
    assert "Other scores" not in page.read_text()
    assert found.reason in page.read_text()


def test_what_was_begun_before_keeps_its_score(tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = answered(tmp_path, photos_and_copies(200, 20, 0.01), min_score=0.5, out=str(out))
    assert (given.min_score, given.score_from) == (0.5, "option")
    index = str(tmp_path / "index")
    assert cvjobs.query(index, duplicates=True, out=str(out)).score_from == "measured"
    record = out / "_cvjobs/format.json"
    signature = sealed.unpack(record.read_bytes())
    assert signature is not None
    record.write_bytes(sealed.pack({**signature, "scores": 2}))
    kept = cvjobs.query(index, duplicates=True, out=str(out))
    assert (kept.min_score, kept.score_from) == (0.98, "earlier folder")
    said = json.loads((out / "summary.json").read_text())
    assert said["reason"].startswith("0.98, with which the folder was begun")
