"""Names as our outputs and exports write them, read back as a list."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import failed, paths, touch, write_table

from cvjobs.common.paths import image_id, meanings, path_bytes, path_text
from cvjobs.dataset.exports.csv import named
from cvjobs.sources.listing import list_source, open_path

NAMES = [b"=a.jpg", b"-b.jpg", b"b\\c.jpg", b"caf\xe9.jpg", b"@d.jpg", b"=e\\\xff.jpg", b"'=f.jpg", b"new\nline.jpg"]
TEXTS = list(map(path_text, NAMES))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in NAMES:
        touch(os.path.join(os.fsencode(tmp_path), name))
    return tmp_path


def as_csv(file: Path, *rows: tuple[str, ...]) -> str:
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows(rows)
    return str(file)


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "txt"])
def test_what_we_write_is_there(photos: Path, kind: str) -> None:
    file = photos / f"l.{kind}"
    if kind == "csv":
        as_csv(file, ("path",), *[(named(text),) for text in TEXTS])
    elif kind == "txt":
        file.write_text("\n".join(map(named, TEXTS)))
    else:
        write_table(file, {"path": TEXTS if kind == "parquet" else list(map(named, TEXTS))})
    listing = list_source(str(file))
    assert (failed(listing), listing.skipped) == ({}, {})
    assert listing.images["path"].to_pylist() == TEXTS
    assert listing.images["image_id"].to_pylist() == list(map(image_id, NAMES))
    assert all(os.path.exists(open_path("", listing.base, path)) for path in paths(listing))


def test_a_name_as_it_is_written_comes_first(tmp_path: Path) -> None:
    for name in (b"b\\x5cc.jpg", b"b\\c.jpg", b"'=a.jpg", b"=a.jpg"):
        touch(os.path.join(os.fsencode(tmp_path), name))
    listing = list_source(as_csv(tmp_path / "l.csv", ("path",), ("b\\x5cc.jpg",), ("'=a.jpg",)))
    assert listing.images["path"].to_pylist() == ["b\\x5cx5cc.jpg", "'=a.jpg"]


def test_a_file_named_both_ways_is_one_image(photos: Path) -> None:
    rows = [("=a.jpg", "1"), ("'=a.jpg", "2"), ("b\\x5cc.jpg", "3"), ("b\\c.jpg", "4")]
    listing = list_source(as_csv(photos / "l.csv", ("path", "n"), *rows))
    assert listing.images.select(["path", "n"]).to_pylist() == [
        {"path": "=a.jpg", "n": "1"},
        {"path": "b\\x5cc.jpg", "n": "3"},
    ]
    assert (failed(listing), listing.skipped) == ({}, {"duplicate": 2})


def test_what_is_nowhere_stays_as_it_is_written(photos: Path) -> None:
    gone = ["'=gone.jpg", "go\\x5cne.jpg", "\\x00", "'b.jpg"]
    listing = list_source(as_csv(photos / "l.csv", ("path",), *[(name,) for name in gone], ("=a.jpg",)))
    assert failed(listing) == dict.fromkeys((path_text(name.encode()) for name in gone), "list_vanished")
    assert not any("backslash" in detail for detail in listing.failures["detail"].to_pylist())
    listing = list_source(
        as_csv(photos / "l.csv", ("path",), ("photos\\a.jpg",), ("ftp\\x3a//host/a.jpg",), ("=a.jpg",))
    )
    assert list(failed(listing)) == ["photos\\x5ca.jpg", "ftp\\x5cx3a//host/a.jpg"]
    assert "folders are parted by / and not by a backslash" in listing.failures["detail"][0].as_py()


def test_the_true_name_is_excluded_and_confined(photos: Path) -> None:
    touch(photos.parent / "outside.jpg")
    file = as_csv(photos / "l.csv", ("path", "n"), ("'=a.jpg", "1"), ("'-b.jpg", "2"), ("\\x2e./outside.jpg", "3"))
    listing = list_source(file, exclude=["=*"], confine=True)
    assert listing.images.select(["path", "n"]).to_pylist() == [{"path": "-b.jpg", "n": "2"}]
    assert listing.left_out == {"excluded": ("=a.jpg",)}
    assert failed(listing) == {"\\x5cx2e./outside.jpg": "list_vanished"}


def test_cells_of_a_csv_are_read_without_the_mark(photos: Path) -> None:
    cells = ["=x", "'=x", "-1", " @y", "'quoted'", "", "a'"]
    rows = [(named(text), named(cell)) for text, cell in zip(TEXTS, cells, strict=False)]
    listing = list_source(as_csv(photos / "l.csv", ("path", "label"), *rows))
    assert listing.images["label"].to_pylist() == cells
    table = write_table(photos / "l.parquet", {"path": TEXTS[:2], "label": ["'=x", "=x"]})
    assert list_source(str(table)).images["label"].to_pylist() == ["'=x", "=x"]


def test_the_first_rules_take_names_and_cells_as_they_are_written(photos: Path) -> None:
    rows = [(named(text), "'=x") for text in TEXTS]
    listing = list_source(as_csv(photos / "l.csv", ("path", "label"), *rows, ("=a.jpg", "'=x")), rules=1)
    assert listing.images.select(["path", "label"]).to_pylist() == [{"path": "=a.jpg", "label": "'=x"}]
    assert len(failed(listing)) == len(NAMES)
    assert set(failed(listing).values()) == {"list_vanished"}


@given(st.binary(max_size=12) | st.text("=\\x5c'\n\x85é ").map(str.encode))
def test_every_name_is_among_the_meanings_of_its_text(raw: bytes) -> None:
    text = path_text(raw)
    assert path_bytes(text) == raw
    whole = raw.decode(errors="ignore").encode() == raw
    for written in (text, named(text)) if whole or text.isprintable() else (text,):
        assert raw in (written.encode(), *meanings(written.encode()))
