"""The listing of folders and single files: every rule of what is an image, on real trees."""

from __future__ import annotations

import os
import shutil
import socket
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import STAMP, as_nobody, failed, opened, paths, touch

from cvjobs.common import rules
from cvjobs.common.errors import WrongUse
from cvjobs.common.paths import image_id, path_bytes, path_text
from cvjobs.sources import rows as listing_rows
from cvjobs.sources.listing import list_source, nothing_found, open_path
from cvjobs.sources.rows import version_of


def test_a_row_has_path_id_size_time_and_version(tmp_path: Path) -> None:
    touch(tmp_path / "a/b.jpg", b"12345")
    listing = list_source(str(tmp_path))
    assert listing.images.schema == listing_rows.IMAGES
    assert listing.failures.schema == listing_rows.FAILURES
    [row] = listing.images.drop_columns(["modified"]).to_pylist()
    expected = version_of(np.array([5]), np.array([STAMP]))
    assert row == {"path": "a/b.jpg", "image_id": image_id(b"a/b.jpg"), "bytes": 5, "version": int(expected[0])}
    assert listing.images["modified"].cast(pa.int64()).to_pylist() == [STAMP]
    assert (listing.source, listing.root, listing.base) == (str(tmp_path), str(tmp_path), "")


def test_identity_of_a_folder_is_its_normal_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a/b.jpg")
    monkeypatch.chdir(tmp_path)
    spellings = ["a", "./a/", "a/../a", f"{tmp_path}//a", f"file://{tmp_path}/a"]
    assert {list_source(spelling).source for spelling in spellings} == {f"{tmp_path}/a"}


EXTENSIONS = [
    *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp"),
    *("tif", "tiff", "avif", "heic", "heif", "ppm", "pgm"),
]


def test_every_image_extension_in_any_case(tmp_path: Path) -> None:
    names = [f"1.{e}" for e in EXTENSIONS] + [f"2.{e.upper()}" for e in EXTENSIONS] + ["3.JpEg", "4.tar.png"]
    for name in names:
        touch(tmp_path / name)
    assert paths(list_source(str(tmp_path))) == sorted(names)


def test_other_names_are_counted_by_extension(tmp_path: Path) -> None:
    for name in ("a.txt", "b.TXT", "c", "d.jpg.bak", "jpg", "e.", "list.csv", "ok.jpg"):
        touch(tmp_path / name)
    listing = list_source(str(tmp_path))
    assert paths(listing) == ["ok.jpg"]
    assert listing.skipped == {".txt": 2, "no extension": 3, ".bak": 1, ".csv": 1}


def test_hidden_and_underscore_names_count_once_each(tmp_path: Path) -> None:
    for name in (".a.jpg", "_b.jpg", ".git/x.jpg", ".git/y.jpg", "__pycache__/deep/z.jpg", "c_.jpg"):
        touch(tmp_path / name)
    before = list_source(str(tmp_path), rules=rules.FIRST)
    assert paths(before) == ["c_.jpg"]
    assert before.skipped == {"hidden": 4}
    listing = list_source(str(tmp_path))
    assert paths(listing) == ["__pycache__/deep/z.jpg", "_b.jpg", "c_.jpg"]
    assert listing.skipped == {"hidden": 2}
    assert listing.left_out == {"hidden": (".a.jpg", ".git")}


def test_a_folder_with_an_image_name_is_a_folder(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg/b.png")
    assert paths(list_source(str(tmp_path))) == ["a.jpg/b.png"]


STRANGE = [
    b"caf\xe9.jpg",
    b"new\nline.jpg",
    "🦊.jpg".encode(),
    b"back\\slash.jpg",
    b"\\xe9.jpg",
    b"#%? .jpg",
    b"f\xff\\/g\xfe.jpg",
    b"a" * 251 + b".jpg",
    b"-rf.jpg",
    b"file:.jpg",
    "e\u0301.jpg".encode(),
    "\u00e9.jpg".encode(),
]


def test_strange_names_round_trip_and_can_be_opened(tmp_path: Path) -> None:
    for i, name in enumerate(STRANGE):
        touch(os.path.join(os.fsencode(tmp_path), name), str(i).encode())
    listing = list_source(str(tmp_path))
    rows_by_name = {path_bytes(row["path"]): row for row in listing.images.drop_columns("modified").to_pylist()}
    assert set(rows_by_name) == set(STRANGE)
    for i, name in enumerate(STRANGE):
        row = rows_by_name[name]
        assert row["image_id"] == image_id(name)
        with open(open_path(listing.root, listing.base, row["path"]), "rb") as file:
            assert file.read() == str(i).encode()
    assert "caf\\xe9.jpg" in paths(listing)


def test_root_with_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    root = os.path.join(os.fsencode(tmp_path), b"caf\xe9[1]")
    touch(root + b"/a.jpg")
    listing = list_source(os.fsdecode(root))
    assert path_bytes(listing.source) == path_bytes(listing.root) == root
    assert open_path(listing.root, listing.base, "a.jpg") == root + b"/a.jpg"


def test_links_fifos_and_sockets(tmp_path: Path) -> None:
    touch(tmp_path / "real/a.jpg", b"123")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "other.jpg").symlink_to("real")
    (tmp_path / "link.jpg").symlink_to("real/a.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "self.png").symlink_to("self.png")
    (tmp_path / "dangling.txt").symlink_to("nowhere")
    (tmp_path / "null.png").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "f.jpg")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        listing = list_source(str(tmp_path))
    assert paths(listing) == ["link.jpg", "real/a.jpg"]
    assert listing.images["bytes"].to_pylist() == [3, 3]
    assert failed(listing) == {"dangling.jpg": "list_vanished", "self.png": "list_vanished"}
    assert listing.skipped == {"folder link": 2, "fifo": 2, "socket": 1, "device": 1, ".txt": 1}
    assert listing.unreadable == ()


def test_what_is_unknown_of_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("nowhere")
    assert list_source(str(tmp_path)).failures.to_pylist() == [
        {
            "path": "a.jpg",
            "image_id": image_id(b"a.jpg"),
            "bytes": 0,
            "modified": None,
            "version": 0,
            "code": "list_vanished",
            "detail": "the target of the link: No such file or directory",
        }
    ]


def test_unreadable_folder_is_a_failure_and_the_walk_goes_on(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    touch(folder / "open/a.jpg")
    touch(folder / "shut/deep/b.jpg")
    (folder / "shut").chmod(0)
    try:
        listing = as_nobody(lambda: list_source(str(folder)))
    finally:
        (folder / "shut").chmod(0o755)
    assert paths(listing) == ["open/a.jpg"]
    assert failed(listing) == {"shut": "list_permission"}
    assert listing.unreadable == ("shut",)


def test_a_folder_that_cannot_be_entered_counts_as_unreadable(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    touch(folder / "names/a.jpg")
    touch(folder / "secret/b.jpg")
    (folder / "link.jpg").symlink_to("secret/b.jpg")
    (folder / "names").chmod(0o744)
    (folder / "secret").chmod(0)
    try:
        listing = as_nobody(lambda: list_source(str(folder)))
    finally:
        for name in ("names", "secret"):
            (folder / name).chmod(0o755)
    denied = "list_permission"
    assert failed(listing) == {"names": denied, "secret": denied, "link.jpg": denied}
    assert sorted(listing.unreadable) == ["names", "secret"]


def test_an_image_without_read_permission_is_listed(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    touch(folder / "a.jpg")
    (folder / "a.jpg").chmod(0)
    assert paths(as_nobody(lambda: list_source(str(folder)))) == ["a.jpg"]


def test_unreadable_root_is_wrong_use(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    (folder / "root").mkdir(mode=0)
    error = as_nobody(lambda: list_source(str(folder / "root")))
    assert isinstance(error, WrongUse)
    assert "Permission denied" in str(error)


@pytest.mark.parametrize("source", ["missing", "missing/*.jpg", "", "a\0b", "a.jpg/b"])
def test_a_source_that_is_not_there(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WrongUse):
        list_source(source)


def test_a_folder_that_goes_away_during_the_walk_is_gone(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        touch(tmp_path / folder / "x.jpg")

    def delete(found: int) -> None:
        if found == 0:  # the root was read, its folders were not
            shutil.rmtree(tmp_path / "b")

    listing = list_source(str(tmp_path), on_progress=delete)
    assert paths(listing) == ["a/x.jpg", "c/x.jpg"]
    assert (listing.failures.num_rows, listing.unreadable, listing.skipped) == (0, (), {})


def test_more_images_than_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvjobs.sources.folder.CHUNK", 4)
    names = [f"{i % 3}/{i}.jpg" for i in range(50)] + ["bad\udcff.jpg"]
    for name in names:
        touch(tmp_path / name)
    counts: list[int] = []
    listing = list_source(str(tmp_path), on_progress=counts.append)
    assert paths(listing) == sorted(path_text(os.fsencode(name)) for name in names)
    ids = {path: image_id(path_bytes(path)) for path in paths(listing)}
    found = zip(listing.images["path"].to_pylist(), listing.images["image_id"].to_pylist(), strict=True)
    assert dict(found) == ids
    assert counts == sorted(counts)
    assert counts[-1] == 51
    assert len(counts) >= 12


def test_times_beyond_64_bits_are_the_nearest_that_fit(tmp_path: Path) -> None:
    touch(tmp_path / "far.jpg")
    touch(tmp_path / "old.jpg", modified_ns=-1)
    os.utime(tmp_path / "far.jpg", ns=(0, 10**19))
    if os.stat(tmp_path / "far.jpg").st_mtime_ns != 10**19:
        pytest.skip("this file system does not know the year 2286")
    listing = list_source(str(tmp_path))
    times = zip(
        listing.images["path"].to_pylist(), listing.images["modified"].cast(pa.int64()).to_pylist(), strict=True
    )
    assert dict(times) == {"far.jpg": 2**63 - 1, "old.jpg": -1}


def test_started_is_before_the_first_entry_was_seen(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg")
    before = time.time_ns()
    seen: list[int] = []
    listing = list_source(str(tmp_path), on_progress=lambda _: seen.append(time.time_ns()))
    assert before <= listing.started_ns <= seen[0]


def test_one_file_is_never_filtered_by_its_name(tmp_path: Path) -> None:
    for name in ("photo", "_hidden.weird"):
        touch(tmp_path / name, b"12")
        listing = list_source(str(tmp_path / name))
        assert (paths(listing), listing.images["bytes"].to_pylist()) == ([name], [2])
        assert (listing.root, listing.source) == (str(tmp_path), str(tmp_path / name))
        assert open_path(listing.root, listing.base, name) == os.fsencode(tmp_path / name)


@pytest.mark.parametrize("name", ["pipe.jpg", "pipe.txt"])
def test_a_fifo_is_no_source_and_is_not_opened(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(WrongUse, match="is a fifo"):
        list_source(str(tmp_path / name))


@pytest.mark.parametrize("source", ["ftp://host/photos", "hdfs://host/a.jpg", "file://host/a.jpg"])
def test_other_schemes_are_named(source: str) -> None:
    with pytest.raises(WrongUse, match=source[: source.index("//")] + ".*local paths.*file:///"):
        list_source(source)


def test_nothing_found_says_what_was_there(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt", ".d", ".e", "f.mp4"):
        touch(tmp_path / name)
    (tmp_path / "g.jpg").symlink_to("nowhere")
    sentence = nothing_found(list_source(str(tmp_path)))
    assert f"{tmp_path} (skipped: 3 .txt, 2 hidden, 1 " in sentence
    assert all(part in sentence for part in ("1 .mp4", "1 list_vanished", "jpg, jpeg"))
    (tmp_path / "empty").mkdir()
    assert "it is empty" in nothing_found(list_source(str(tmp_path / "empty")))


def test_of_many_kinds_nothing_found_names_the_most_frequent(tmp_path: Path) -> None:
    for i in range(20):
        touch(tmp_path / f"a.x{i}")
        touch(tmp_path / f"b{i}.txt")
    sentence = nothing_found(list_source(str(tmp_path)))
    assert "(skipped: 20 .txt, 1 ." in sentence
    assert ", 13 of 13 other kinds): give " in sentence


def test_links_to_folders_alone_are_told_with_what_to_do(tmp_path: Path) -> None:
    touch(tmp_path / "real/a.jpg")
    for name in ("cats", "dogs"):
        (tmp_path / "classes").mkdir(exist_ok=True)
        (tmp_path / "classes" / name).symlink_to(tmp_path / "real")
    assert nothing_found(list_source(str(tmp_path / "classes"))) == (
        f"There is no image in {tmp_path}/classes (skipped: 2 folder link), and links to folders are not followed: "
        "name one as the source, or their images in a list."
    )
    assert paths(list_source(str(tmp_path / "classes/cats"))) == ["a.jpg"]


@given(st.binary(max_size=60) | st.text(max_size=30).map(lambda text: text.encode(errors="surrogatepass")))
def test_path_text_is_utf8_and_reversible(raw: bytes) -> None:
    text = path_text(raw)
    assert path_bytes(text) == raw
    assert text.encode().decode() == text


@given(st.lists(st.binary(min_size=1, max_size=12).filter(lambda raw: b"\0" not in raw), max_size=6))
def test_columns_of_paths_are_those_of_each_path(raws: list[bytes]) -> None:
    path, ids = listing_rows.path_columns(raws)
    assert path.to_pylist() == [path_text(raw) for raw in raws]
    assert ids.to_pylist() == [image_id(raw) for raw in raws]
    path.validate(full=True)
