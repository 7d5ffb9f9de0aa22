"""Lists of images: text files of URIs, and Parquet or CSV with a path column."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trees import as_nobody, failed, opened, paths, touch, write_table

from cvjobs.common import rules
from cvjobs.common.errors import WrongUse
from cvjobs.common.paths import image_id
from cvjobs.sources import rows as source_rows
from cvjobs.sources.list_text import LINE
from cvjobs.sources.listing import list_source, open_path
from cvjobs.sources.lists import PATH_COLUMNS


def test_text_list(tmp_path: Path) -> None:
    touch(tmp_path / "photos/a.jpg", b"1")
    touch(tmp_path / "lists/b b", b"22")
    touch(tmp_path / "lists/d#%?.jpg", b"333")
    uris = [f"{tmp_path}/photos/a.jpg", "../photos/a.jpg", "b b", f"file://{tmp_path}/lists/d%23%25%3f.jpg", "d#%?.jpg"]
    text = "\ufeff# a comment\r\n\r\n" + "\r\n".join(uris) + "\n  \n"
    (tmp_path / "lists/list.txt").write_bytes(text.encode())
    listing = list_source(str(tmp_path / "lists/list.txt"))
    assert listing.images["path"].to_pylist() == uris
    assert listing.images["image_id"].to_pylist() == [image_id(uri.encode()) for uri in uris]
    assert listing.images["bytes"].to_pylist() == [1, 1, 2, 3, 3]
    assert (listing.failures.num_rows, listing.skipped, listing.unreadable) == (0, {}, ())
    assert (listing.root, listing.base) == ("", str(tmp_path / "lists"))
    assert listing.source == str(tmp_path / "lists/list.txt")
    sizes = [os.stat(open_path(listing.root, listing.base, uri)).st_size for uri in uris]
    assert sizes == [1, 1, 2, 3, 3]


def test_undecodable_and_backslashed_lines(tmp_path: Path) -> None:
    names = [b"caf\xe9.jpg", b"back\\slash"]
    for name in names:
        touch(os.path.join(os.fsencode(tmp_path), name))
    (tmp_path / "l.lst").write_bytes(b"\n".join(names))
    listing = list_source(str(tmp_path / "l.lst"))
    assert listing.images["path"].to_pylist() == ["caf\\xe9.jpg", "back\\x5cslash"]
    assert all(os.path.exists(open_path("", listing.base, path)) for path in paths(listing))


def test_duplicates_are_counted_and_the_first_is_kept(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg")
    touch(tmp_path / "b.jpg")
    (tmp_path / "l.txt").write_text("b.jpg\na.jpg\ngone\nb.jpg\ngone\nb.jpg\n./b.jpg")
    listing = list_source(str(tmp_path / "l.txt"))
    assert listing.images["path"].to_pylist() == ["b.jpg", "a.jpg", "./b.jpg"]
    assert failed(listing) == {"gone": "list_vanished"}
    assert listing.failures.num_rows == 1
    assert listing.skipped == {"duplicate": 3}


def test_duplicates_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvjobs.sources.lists.CHUNK", 3)
    for i in range(5):
        touch(tmp_path / f"{i}")
    (tmp_path / "l.txt").write_text("\n".join(["0", "1", "2", "3", "1", "4", "gone", "0", "gone"]))
    listing = list_source(str(tmp_path / "l.txt"))
    assert listing.images["path"].to_pylist() == ["0", "1", "2", "3", "4"]
    assert (failed(listing), listing.skipped) == ({"gone": "list_vanished"}, {"duplicate": 3})


def test_bad_entries_of_a_list_are_failures(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    touch(folder / "folder/a.jpg")
    touch(folder / "shut/b.jpg")
    os.mkfifo(folder / "pipe")
    lines = ["folder", "pipe", "missing.jpg", "shut/b.jpg", "nul\0nul", "n" * 300, "folder/a.jpg/deeper"]
    (folder / "l.txt").write_text("\n".join(lines))
    (folder / "shut").chmod(0)
    try:
        listing = as_nobody(lambda: list_source(str(folder / "l.txt")))
    finally:
        (folder / "shut").chmod(0o755)
    codes = ["not_an_image", "not_an_image", "list_vanished", "list_permission", *["list_vanished"] * 3]
    assert failed(listing) == dict(zip(lines, codes, strict=True))
    assert listing.failures["detail"].to_pylist()[:2] == ["is a folder", "is a fifo"]
    assert listing.images.num_rows == 0


def test_a_scheme_in_a_list_is_named(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("ftp://host/a.jpg\n")
    with pytest.raises(WrongUse, match=r"ftp://.*local paths"):
        list_source(str(tmp_path / "l.txt"))


def test_a_url_that_makes_no_sense_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("http://[::1/a.jpg\nhttps:///a.jpg\n")
    assert set(failed(list_source(str(tmp_path / "l.txt"))).values()) == {"list_vanished"}


@pytest.mark.parametrize("source", ["http://[::1/a.jpg", "s3://bucket/caf\udce9.jpg", "https://host/caf\udce9.jpg"])
def test_a_url_that_makes_no_sense_is_no_source(source: str) -> None:
    with pytest.raises(WrongUse, match="correct its name"):
        list_source(source)


def test_an_unreadable_list_is_wrong_use(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    touch(folder / "l.txt")
    (folder / "l.txt").chmod(0)
    assert "Permission denied" in str(as_nobody(lambda: list_source(str(folder / "l.txt"))))


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv"])
@pytest.mark.parametrize("column", ["path", "uri", "url", "file", "filename", "image"])
def test_table_list(tmp_path: Path, suffix: str, column: str) -> None:
    for i in range(3):
        touch(tmp_path / f"{i}.jpg", b"x" * i)
    columns = {"price": [1, 20, 300, 4], column: ["2.jpg", "gone", "0.jpg", "1.jpg"], "tag": ["a", "b", "é", "d"]}
    listing = list_source(str(write_table(tmp_path / f"l.{suffix}", columns)))
    numbers = [1, 300, 4] if suffix == "parquet" else ["1", "300", "4"]
    assert listing.images.schema.names == [*source_rows.IMAGES.names, "price", "tag"]
    assert listing.images.select(["path", "bytes", "price", "tag"]).to_pydict() == {
        "path": ["2.jpg", "0.jpg", "1.jpg"],
        "bytes": [2, 0, 1],
        "price": numbers,
        "tag": ["a", "é", "d"],
    }
    assert listing.failures.schema == source_rows.FAILURES
    assert failed(listing) == {"gone": "list_vanished"}


def test_csv_keeps_text_as_written(tmp_path: Path) -> None:
    touch(tmp_path / "a,b\nc.jpg")
    (tmp_path / "l.csv").write_bytes(b'\xef\xbb\xbfpath,code\r\n"a,b\nc.jpg",007\r\n,008\r\n')
    listing = list_source(str(tmp_path / "l.csv"))
    assert listing.images.select(["path", "code"]).to_pylist() == [{"path": "a,b\nc.jpg", "code": "007"}]
    assert listing.skipped == {"no path": 1}


def test_the_first_known_name_is_the_path_and_others_are_carried(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg")
    listing = list_source(str(write_table(tmp_path / "l.parquet", {"url": ["u"], "path": ["a.jpg"]})))
    assert (paths(listing), listing.images["url"].to_pylist()) == (["a.jpg"], ["u"])


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("path", pa.large_string()),
        ("path", pa.binary()),
        ("path", pa.string_view()),
        ("path", pa.dictionary(pa.int8(), pa.string())),
    ],
)
def test_path_columns_of_any_text_type(tmp_path: Path, column: str, kind: pa.DataType) -> None:
    touch(tmp_path / "a.jpg")
    paths_column = pa.array(["a.jpg", None, "a.jpg"]).cast(pa.string())
    table = paths_column.dictionary_encode() if pa.types.is_dictionary(kind) else paths_column.cast(kind)
    listing = list_source(str(write_table(tmp_path / "l.parquet", {column: table})))
    assert (paths(listing), listing.skipped) == (["a.jpg"], {"no path": 1, "duplicate": 1})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": ["a"], "label": ["b"]}, "name, label"),
        ({"path": [1]}, "int64.*strings"),
    ],
)
def test_tables_that_are_no_list(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongUse, match=message):
        list_source(str(write_table(tmp_path / "l.parquet", columns)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.parquet", b"PAR1 no"),
        ("l.csv", b""),
        ("l.csv", b"path,a\nx\n"),
        ("l.csv", b"path,a,a\nx,y,z\n"),
        ("l.csv", b"path,a\nx,\xe9\n"),
        ("l.csv", b"path,caf\xe9\nx,1\n"),
        ("l.csv", b"p" * 200_000),
    ],
)
def test_damaged_tables_are_wrong_use(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WrongUse, match=r"l\.(parquet|csv)"):
        list_source(str(tmp_path / name))


LONG = b"a" * (1 << 20)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.txt", b"ftp://" + LONG),
        ("l.txt", LONG + b"://x"),
        ("l.txt", b"ftp://\x1b[31m\0\x07/x"),
        ("l.csv", LONG + b",b\n1,2\n"),
        ("l.csv", b"p\x1b[31mth\0,b\n1,2\n"),
        ("l.csv", b",".join(b"c%d" % i for i in range(50_000))),
        ("l.csv", b"path," + b",".join([b"b" * 1000] * 200) + b"\n"),
        ("l.csv", b"path,b\nx,1\n" + LONG + b",1,2\n"),
        ("l.csv", b'path,b\nx,"' + LONG * 20),
        ("l.tsv", b"\0" * (1 << 20)),
        ("l.parquet", b"PAR1\x1b[31m" + LONG + b"PAR1"),
        ("l.parquet", b"\0" * (1 << 20)),
    ],
)
def test_what_is_wrong_with_a_list_is_one_short_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WrongUse) as caught:
        list_source(str(tmp_path / name))
    sentence = str(caught.value)
    assert len(sentence) < 1000
    assert sentence.endswith(".")
    assert sentence.isprintable()


@pytest.mark.parametrize("suffix", ["txt", "csv", "parquet"])
def test_entries_without_sense_are_failures(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path / "a.jpg")
    long = "a" * (1 << 20)
    entries = [
        "a.jpg",
        long,
        f"http://{long}/x",
        f"s3://{long}/x",
        f"s3://b/{long}",
        "nul\0nul",
        "http://\0/",
        "s3:///x",
    ]
    if suffix == "txt":  # of which no line is so long
        entries = [entry.replace(long, "a" * (LINE - 20)) for entry in entries]
        (tmp_path / "l.txt").write_text("\n".join(entries))
    else:
        write_table(tmp_path / f"l.{suffix}", {"path": entries, "x": list(map(str, range(8)))})
    listing = list_source(str(tmp_path / f"l.{suffix}"), {"endpoint": "http://127.0.0.1:1", "skip_signature": "true"})
    assert paths(listing) == ["a.jpg"]
    assert failed(listing) == dict.fromkeys(entries[1:], "list_vanished")


def test_a_list_in_a_folder_is_no_source(tmp_path: Path) -> None:
    touch(tmp_path / "list.txt", b"a.jpg")
    touch(tmp_path / "b.jpg")
    assert list_source(str(tmp_path)).skipped == {".txt": 1}
    assert list_source(f"{tmp_path}/*").skipped == {".txt": 1}


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv"])
def test_a_second_column_that_could_be_the_path_is_carried(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path / "a.jpg")
    for name, other in itertools.permutations(PATH_COLUMNS, 2):
        first = min(name, other, key=PATH_COLUMNS.index)
        (second,) = {name, other} - {first}
        table = write_table(tmp_path / f"l.{suffix}", {name: ["a.jpg"], other: ["a.jpg"], "label": ["007"]})
        found = list_source(str(table)).images
        assert found["path"].to_pylist() == ["a.jpg"]
        assert (found[second].type, found[second].to_pylist()) == (pa.string(), ["a.jpg"])
        assert found["label"].to_pylist() == ["007"]
        assert first not in set(found.schema.names) - {"path"}


OURS = ["image_id", "bytes", "modified", "version", "content_hash", "width", "height", "frames", "embedding"]


@pytest.mark.parametrize("listing_rules", [rules.FIRST, rules.LISTING])
@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv"])
def test_columns_that_are_not_carried_are_not_carried(tmp_path: Path, suffix: str, listing_rules: int) -> None:
    """They were refused, in what our own commands write too; the first rules had no list with them to go on with."""
    touch(tmp_path / "a.jpg", b"123")
    file = tmp_path / f"l.{suffix}"
    plain = list_source(str(write_table(file, {"path": ["a.jpg"], "site": ["x"]})), rules=listing_rules)
    assert plain.not_carried == ()
    columns = {"width": ["7"], "path": ["a.jpg"], **{name: ["7"] for name in OURS if name != "width"}, "site": ["x"]}
    again = list_source(str(write_table(file, columns)), rules=listing_rules)
    assert again.images.equals(plain.images)  # the version, too: nothing is computed again because of them
    assert again.not_carried == ("width", *(name for name in OURS if name != "width"))
    assert list_source(str(file), columns=("site",)).images.equals(plain.images)


def test_columns_of_such_a_name_may_be_there_twice_and_others_not(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg")
    (tmp_path / "l.csv").write_text("path,width,width,site\na.jpg,1,2,x\n")
    listing = list_source(str(tmp_path / "l.csv"))
    assert (listing.images["site"].to_pylist(), listing.not_carried) == (["x"], ("width",))
    (tmp_path / "l.csv").write_text("path,site,site,width\na.jpg,1,2,x\n")
    with pytest.raises(WrongUse, match=r"The columns site of .*l\.csv are there twice: rename them\."):
        list_source(str(tmp_path / "l.csv"))
    pq.write_table(
        pa.table([["a.jpg"], [1], [2], ["x"]], names=["path", "width", "width", "site"]), tmp_path / "l.parquet"
    )
    assert list_source(str(tmp_path / "l.parquet")).images["site"].to_pylist() == ["x"]


def test_columns_of_parquet_with_odd_names_are_read(tmp_path: Path) -> None:
    """Of a Parquet file only the columns that are carried are read; dots part the names of nested ones there."""
    touch(tmp_path / "a.jpg")
    names = ["a", "a.b", "width.x", "", ".", "n..m", "path.list"]
    columns = {name: [f"of {name}"] for name in names}
    nested = {"width": [[1.0] * 9], "embedding": [{"path": "no"}], "list": [[{"a": 1, "b": {"path": 2}}]]}
    table = write_table(tmp_path / "l.parquet", {**nested, **columns, "path": ["a.jpg"]})
    listing = list_source(str(table))
    assert paths(listing) == ["a.jpg"]
    assert listing.images.select(["list", *names]).to_pylist() == [
        {"list": [{"a": 1, "b": {"path": 2}}], **{name: f"of {name}" for name in names}}
    ]
    assert listing.not_carried == ("width", "embedding")
