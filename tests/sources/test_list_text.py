"""Lists as other programs write them: encodings with and without marks, odd line ends, and what is wrong by line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from trees import failed, paths, touch

from cvjobs.common import rules
from cvjobs.common.errors import WrongUse
from cvjobs.sources.list_text import BLOCK, LINE
from cvjobs.sources.listing import list_source, nothing_found

TEXT = "a.jpg\né.jpg\n"
TABLE = "path,tag\na.jpg,ü\né.jpg,x\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "é.jpg"):
        touch(tmp_path / name)
    return tmp_path


def wrong(file: Path, content: bytes) -> str:
    """The one sentence about a list that cannot be used."""
    file.write_bytes(content)
    with pytest.raises(WrongUse) as caught:
        list_source(str(file))
    said = str(caught.value)
    assert said.startswith(("Line ", "The list ", str(file)))
    assert said.endswith(".")
    assert said.isprintable()
    assert len(said) < 500
    return said.replace(f" of the list {file}", "")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("suffix", ["txt", "csv", "tsv"])
def test_marks_say_the_encoding(folder: Path, encoding: str, suffix: str) -> None:
    text = TEXT if suffix == "txt" else TABLE.replace(",", "\t" if suffix == "tsv" else ",")
    (folder / f"l.{suffix}").write_bytes(text.encode(encoding))
    listing = list_source(str(folder / f"l.{suffix}"))
    assert paths(listing) == ["a.jpg", "é.jpg"]
    assert suffix == "txt" or listing.images["tag"].to_pylist() == ["ü", "x"]


@pytest.mark.parametrize("mark", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_marks_say_the_order_of_bytes(folder: Path, mark: str) -> None:
    (folder / "l.lst").write_bytes(("\ufeff" + TEXT).encode(mark))
    assert paths(list_source(str(folder / "l.lst"))) == ["a.jpg", "é.jpg"]


def test_a_character_may_lie_across_two_blocks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvjobs.sources.list_text.BLOCK", 5)
    (folder / "l.txt").write_bytes("a.jpg\n🦊.jpg\né.jpg\n".encode("utf-16"))
    assert failed(list_source(str(folder / "l.txt"))) == {"🦊.jpg": "list_vanished"}
    assert "Line 3 is not UTF-16" in wrong(folder / "l.txt", "a.jpg\n🦊.jpg\n".encode("utf-16") + b"x")


WRONG = [
    (
        "l.txt",
        b"a.jpg\r" + b"b.jpg\r\n\r\n" + b"x" * (LINE + 1) + b"\nb.jpg",
        "Line 4 has more than the 64 KiB that a line may",
    ),
    ("l.txt", b"\xef\xbb\xbf# " + b"x" * LINE, "Line 1 has more than the 64 KiB that a line may have"),
    ("l.lst", ("a.jpg\n" + "é" * LINE).encode("utf-16"), "Line 2 has more than the 64 KiB that a line may have"),
    ("l.csv", b"path," + b"c," * BLOCK + b"\n", "Line 1 has more than the 8 MiB that a row may have"),
    ("l.csv", b"\n\npath," + b"c" * 2 * BLOCK + b"\n", "Line 3 has more than the 8 MiB that a row may have"),
    (
        "l.csv",
        b'path,tag\na.jpg,"' + (b"x" * 1023 + b"\n") * (BLOCK >> 9) + b'"\nb.jpg,',
        "Line 2 has more than the 8 MiB that a row may have",
    ),
    ("l.csv", TABLE.encode("utf-16-le"), "Line 1 holds a NUL byte in every character, as UTF-16 does"),
    ("l.txt", TEXT.encode("utf-16-be"), "Line 1 holds a NUL byte in every character, as UTF-16 does"),
    ("l.csv", TABLE.encode("utf-16") + b"x", "Line 4 is not UTF-16, as its first bytes say"),
    ("l.tsv", TABLE.encode("utf-16") + b"\x00\xd8\x41\x00", "Line 4 is not UTF-16, as its first bytes say"),
    ("l.csv", b"\xff\xfe\0\0" + b"\xff" * 8, "Line 1 is not UTF-32, as its first bytes say"),
    ("l.csv", TABLE.encode("latin-1"), "Line 2 is not UTF-8 in the column tag"),
    ("l.csv", TABLE.encode("cp1250").replace(b"\xfc", b"\x8a"), "Line 2 is not UTF-8 in the column tag"),
    ("l.csv", b"path,\xe9\na.jpg,1\n", "Line 1 is not UTF-8"),
    ("l.csv", b'path,tag\na.jpg,x\nb.jpg,"y\na.jpg,z\n', "Line 3 begins a quote that never ends"),
    ("l.csv", b'path,tag\n"a.jpg,x\nb.jpg,y\n', "Line 2 begins a quote that never ends"),
    ("l.csv", b'path,tag\na.jpg,"x"\n"', "Line 3 begins a quote that never ends"),
    ("l.csv", b'path,tag\r\na.jpg,"x\r\n', "Line 2 begins a quote that never ends"),
    ("l.csv", b'path,tag\na.jpg,"x\ny"\nb.jpg,"\n' + b"z\n" * 200_000, "Line 4 begins a quote that never ends"),
    ("l.csv", b"path,tag\na.jpg,x\nb.jpg\n", "Line 3 has 1 cell where the header has 2"),
    ("l.csv", b'path,tag\na.jpg,"x\ny"\nb.jpg,1,2\n', "Line 4 has 3 cells where the header has 2"),
    ("l.csv", b"path,tag\r\na.jpg,x\ra.jpg\r\n", "Line 3 has 1 cell where the header has 2"),
    ("l.csv", b"path,tag\n\n\na.jpg,x\n  \n", "Line 5 has 1 cell where the header has 2"),
    ("l.tsv", b"path\ttag\na.jpg,1\n", "Line 2 has 1 cell where the header has 2"),
    ("l.csv", b"path,tag\na.jpg,x\nb.jpg," + b"x" * 2 * BLOCK + b"\n", "Line 3 has more than the 8 MiB"),
]


@pytest.mark.parametrize(("name", "content", "what"), WRONG, ids=[f"{i}" for i in range(len(WRONG))])
def test_what_is_wrong_is_said_with_its_line(folder: Path, name: str, content: bytes, what: str) -> None:
    said = wrong(folder / name, content)
    assert said.startswith(what)
    assert said.endswith("correct that line, and write the list in UTF-8.")


@pytest.mark.parametrize(
    ("content", "tags"),
    [
        (b'path,tag\na.jpg,5" disk\n', ['5" disk']),
        (b'path,tag\na.jpg,"5"" disk"\n', ['5" disk']),
        (b'path,tag\na.jpg,"x\ny"\n', ["x\ny"]),
        (b'path,tag\na.jpg,"x"', ["x"]),
        (b"\n\npath,tag\n\na.jpg,x\n\n", ["x"]),
        (b"path,tag\r\na.jpg,x\nb.jpg,y\ra.jpg,z", ["x", "y"]),
        (b"path,tag\na.jpg," + b"x" * (BLOCK // 2) + b"\n", ["x" * (BLOCK // 2)]),
        (b"path,tag\na.jpg,x\0\n", ["x\0"]),
    ],
)
def test_what_is_unusual_and_not_wrong_is_read(folder: Path, content: bytes, tags: list[str]) -> None:
    (folder / "l.csv").write_bytes(content)
    assert list_source(str(folder / "l.csv")).images["tag"].to_pylist() == tags


def test_by_the_first_rules_an_open_quote_is_a_cell(folder: Path) -> None:
    (folder / "l.csv").write_bytes(b'path,tag\na.jpg,"x\nb.jpg,y\n')
    listing = list_source(str(folder / "l.csv"), rules=rules.FIRST)
    assert listing.images.select(["path", "tag"]).to_pylist() == [{"path": "a.jpg", "tag": "x\nb.jpg,y\n"}]


def test_every_kind_of_line_end_ends_a_line(folder: Path) -> None:
    (folder / "l.txt").write_bytes(b"a.jpg\r\nb.jpg\r\rgone.jpg\n")
    listing = list_source(str(folder / "l.txt"))
    assert (paths(listing), failed(listing)) == (["a.jpg", "b.jpg"], {"gone.jpg": "list_vanished"})
    before = list_source(str(folder / "l.txt"), rules=rules.FIRST)
    assert (paths(before), list(failed(before))) == (["a.jpg"], ["b.jpg\r\rgone.jpg"])


@pytest.mark.parametrize("content", [b"path,tag\n", b"path,tag", b"\xef\xbb\xbfpath,tag\r\n\r\n", b'"path",tag\r'])
def test_a_header_alone_names_no_image(folder: Path, content: bytes) -> None:
    (folder / "l.csv").write_bytes(content)
    listing = list_source(str(folder / "l.csv"))
    assert (listing.images.num_rows, listing.images.schema.names[-1]) == (0, "tag")
    assert "There is no image in" in nothing_found(listing)
    assert "(it names none)" in nothing_found(listing)


def test_a_name_in_another_encoding_is_told_with_its_line(folder: Path) -> None:
    (folder / "l.txt").write_bytes(b"a.jpg\n\n\xe9.jpg\n")
    listing = list_source(str(folder / "l.txt"))
    assert paths(listing) == ["a.jpg"]
    assert listing.failures["detail"].to_pylist() == [
        "No such file or directory; line 3 of the list is not UTF-8",
    ]
    (folder / "l.csv").write_bytes(b"path\na.jpg\n\xe9.jpg\n")
    assert "line 3 of the list is not UTF-8" in str(list_source(str(folder / "l.csv")).failures["detail"][0])


def test_rows_without_a_path_are_numbered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvjobs.sources.lists.CHUNK", 2)
    (folder / "l.csv").write_text("path,n\na.jpg,1\n,2\nb.jpg,3\n,4\n")
    listing = list_source(str(folder / "l.csv"))
    assert (listing.skipped, listing.left_out) == ({"no path": 2}, {"no path": ("row 2", "row 4")})


def test_what_is_named_twice_is_named(folder: Path) -> None:
    (folder / "l.txt").write_text("a.jpg\nb.jpg\na.jpg\ngone\ngone\n")
    assert list_source(str(folder / "l.txt")).left_out == {"duplicate": ("a.jpg", "gone")}


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (
            "path,tag\nimages/x.jpg,1\ny.jpg,2\n",
            "the first of 2 is images/x.jpg, looked for in {}, the list's own folder",
        ),
        ("path\n/nowhere/x.jpg\n", "the first of 1 is /nowhere/x.jpg (No such file or directory)"),
        ("path\nfile:///nowhere/x.jpg\n", "the first of 1 is file:///nowhere/x.jpg (No such file or directory)"),
        (
            "path\nimages\\x.jpg\n",
            "is images\\x.jpg, looked for in {}, the list's own folder (No such file or directory; ",
        ),
        ("path\n~/x.jpg\n", "the first of 1 is ~/x.jpg, looked for in {}"),
    ],
)
def test_a_list_whose_paths_all_miss_says_where_it_looked(folder: Path, content: str, where: str) -> None:
    (folder / "l.csv").write_text(content)
    said = nothing_found(list_source(str(folder / "l.csv")))
    assert said.startswith(f"No path in {folder}/l.csv leads to a file: ")
    assert where.format(folder) in said
    assert said.endswith("correct the paths, or put the list where they start from.")


def test_columns_named_like_results_are_no_matter_where_they_are_not_wanted(folder: Path) -> None:
    """What `cvjobs export` writes of `classify` is a list to train on."""
    file = folder / "labels.csv"
    file.write_text("path,width,height,label,score\na.jpg,4,4,cat,0.9\nb.jpg,4,4,dog,0.8\n")
    images = list_source(str(file), columns=("label", "split")).images
    assert images["label"].to_pylist() == ["cat", "dog"]
    assert not {"width", "height", "score"} & set(images.schema.names)


def test_lines_as_long_as_they_may_be_are_read(folder: Path) -> None:
    (folder / "l.txt").write_bytes(b"\r".join([b"a.jpg", b"x" * LINE, b"b.jpg"]))
    listing = list_source(str(folder / "l.txt"))
    assert (paths(listing), failed(listing)) == (["a.jpg", "b.jpg"], {"x" * LINE: "list_vanished"})


def test_by_the_first_rules_a_line_has_any_length(folder: Path) -> None:
    (folder / "l.txt").write_bytes(b"a.jpg\n" + b"x" * (LINE + 1))
    listing = list_source(str(folder / "l.txt"), rules=rules.FIRST)
    assert (paths(listing), failed(listing)) == (["a.jpg"], {"x" * (LINE + 1): "list_vanished"})


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("l.txt", b""),
        ("l.csv", b""),
        *(pytest.param("l.csv", b"path,tag\na.jpg," + cell, marks=pytest.mark.slow) for cell in (b"", b'"')),
    ],
)
def test_a_line_without_end_takes_no_memory(folder: Path, name: str, begin: bytes) -> None:
    """A file of a gigabyte, most of which is a hole, in a process that may take a quarter of that."""
    with (folder / name).open("wb") as file:
        file.write(begin + b"x" * BLOCK)
        file.truncate(1 << 30)
    code = f"""
import resource, sys
from cvjobs.common.errors import WrongUse
from cvjobs.sources.listing import list_source
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
try:
    list_source({str(folder / name)!r})
except WrongUse as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert ended.stdout.startswith("Line "), ended
    assert " has more than the " in ended.stdout
