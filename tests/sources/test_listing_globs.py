"""The listing of globs: what a pattern names, and where its paths start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from trees import as_nobody, failed, opened, paths, touch

from cvjobs.common import rules
from cvjobs.sources.listing import list_source


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    for name in (
        "a1.jpg",
        "a2.png",
        "b.txt",
        "x/a3.jpg",
        "x/y/a4.jpg",
        "x/y/b5.JPG",
        ".h/a6.jpg",
        "x/_a7.jpg",
        "z/n.txt",
    ):
        touch(tmp_path / "shelf" / name)
    return tmp_path / "shelf"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["a1.jpg", "a2.png"]),
        ("*.jpg", ["a1.jpg"]),
        ("a?.jpg", ["a1.jpg"]),
        ("a[2-9].*", ["a2.png"]),
        ("a[!2].*", ["a1.jpg"]),
        ("**", ["a1.jpg", "a2.png", "x/a3.jpg", "x/y/a4.jpg", "x/y/b5.JPG"]),
        ("**/*.jpg", ["a1.jpg", "x/a3.jpg", "x/y/a4.jpg"]),
        ("**/y/*", ["x/y/a4.jpg", "x/y/b5.JPG"]),
        ("**/y/**/a*", ["x/y/a4.jpg"]),
        ("*/*.jpg", ["x/a3.jpg"]),
        ("*/y/a4.jpg", ["x/y/a4.jpg"]),
        ("?/**/*.JPG", ["x/y/b5.JPG"]),
        ("*/_*", ["x/_a7.jpg"]),
        ("**/.h/*", [".h/a6.jpg"]),
        ("**/*.gif", []),
    ],
)
def test_glob(shelf: Path, pattern: str, expected: list[str]) -> None:
    listing = list_source(f"{shelf}/{pattern}", rules=rules.FIRST)
    assert paths(listing) == expected
    now = list_source(f"{shelf}/{pattern}")
    more = ["x/_a7.jpg"] * (pattern in ("**", "**/*.jpg", "*/*.jpg"))
    assert paths(now) == sorted([*expected, *more])
    assert (listing.root, listing.source) == (str(shelf), f"{shelf}/{pattern}")


def test_the_root_of_a_glob_is_the_folder_before_the_first_wildcard(shelf: Path) -> None:
    listing = list_source(f"{shelf}/x/*/a4.jpg")
    assert (listing.root, paths(listing)) == (f"{shelf}/x", ["y/a4.jpg"])


def test_a_glob_counts_what_it_names_and_passes_over(shelf: Path) -> None:
    (shelf / "link").symlink_to("x")
    os.mkfifo(shelf / "f.jpg")
    (shelf / "gone.jpg").symlink_to("nowhere")
    listing = list_source(f"{shelf}/*")
    assert listing.skipped == {".txt": 1, "hidden": 1, "folder": 2, "folder link": 1, "fifo": 1}
    assert failed(listing) == {"gone.jpg": "list_vanished"}
    assert listing.left_out["folder link"] == ("link",)
    before = list_source(f"{shelf}/**/*.jpg", rules=rules.FIRST)
    assert before.skipped == {"hidden": 2, "folder link": 1, "fifo": 1}
    assert list_source(f"{shelf}/**/*.jpg").skipped == {"hidden": 1, "folder link": 1, "fifo": 1}
    assert list_source(f"{shelf}/*.png").skipped == {}


def test_a_literal_name_with_wildcards_wins(tmp_path: Path) -> None:
    touch(tmp_path / "a[1]*/b.jpg")
    touch(tmp_path / "a1/c.jpg")
    assert paths(list_source(f"{tmp_path}/a[1]*")) == ["b.jpg"]
    assert paths(list_source(f"{tmp_path}/a[1]/*")) == ["a1/c.jpg"]


def test_a_glob_matches_characters_and_undecodable_bytes(tmp_path: Path) -> None:
    for name in ("é.jpg".encode(), b"\xe9.jpg"):
        touch(os.path.join(os.fsencode(tmp_path), name))
    assert paths(list_source(f"{tmp_path}/?.jpg")) == ["\\xe9.jpg", "é.jpg"]
    assert paths(list_source(f"{tmp_path}/[\udce9].jpg")) == ["\\xe9.jpg"]


def test_a_glob_does_not_enter_folders_it_does_not_name(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    touch(folder / "a/x/1.jpg")
    touch(folder / "b/x/2.jpg")
    (folder / "b").chmod(0)
    try:
        listing = as_nobody(lambda: list_source(f"{folder}/a*/**"))
    finally:
        (folder / "b").chmod(0o755)
    assert (paths(listing), listing.failures.num_rows, listing.unreadable) == (["a/x/1.jpg"], 0, ())
