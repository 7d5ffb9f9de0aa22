"""What a listing leaves out, why, and what it says of it: hidden names, systems' entries, our own folders, patterns."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from trees import failed, paths, touch

from cvjobs.common import rules
from cvjobs.common.errors import WrongUse
from cvjobs.sources import reasons
from cvjobs.sources import rows as listing_rows
from cvjobs.sources.left_out import EXAMPLES, told
from cvjobs.sources.left_out import rows as page_rows
from cvjobs.sources.listing import list_source
from cvjobs.sources.rows import Listing


def made(root: Path, *names: str) -> Path:
    for name in names:
        touch(root / name)
    return root


def left_out(listing: Listing) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Count and first names of each reason, which always go together."""
    assert listing.left_out.keys() == listing.skipped.keys()
    return {reason: (count, listing.left_out[reason]) for reason, count in listing.skipped.items()}


def test_names_of_cameras_are_no_hidden_ones(tmp_path: Path) -> None:
    names = ["_DSC0002.JPG", "_MG_1234.JPG", "__x.png", "_raw/a.jpg"]
    made(tmp_path, *names, ".b.jpg", "._DSC0002.JPG")
    listing = list_source(str(tmp_path))
    assert paths(listing) == sorted(names)
    assert left_out(listing) == {"hidden": (2, ("._DSC0002.JPG", ".b.jpg"))}
    assert paths(list_source(f"{tmp_path}/*.JPG")) == ["_DSC0002.JPG", "_MG_1234.JPG"]


def test_by_the_first_rules_they_stay_hidden(tmp_path: Path) -> None:
    made(tmp_path, "_DSC0002.JPG", "a.jpg", "@eaDir/b.jpg", "out/_cvjobs/format.json", "out/c.jpg")
    listing = list_source(str(tmp_path), rules=rules.FIRST)
    assert paths(listing) == ["@eaDir/b.jpg", "a.jpg", "out/c.jpg"]
    assert listing.skipped == {"hidden": 2}


@pytest.mark.parametrize(
    "folder",
    [
        *("@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "$Recycle.Bin", "System Volume Information", "lost+found"),
        *("@Recycle", "@Recently-Snapshot", "#snapshot", "~snapshot", "Network Trash Folder", "_NAS_Recycle_RAID"),
    ],
)
def test_what_systems_leave_is_left_out(tmp_path: Path, folder: str) -> None:
    made(tmp_path, f"{folder}/a.jpg", f"x/{folder}/deep/b.jpg", "x/c.jpg", f"{folder}.jpg")
    listing = list_source(str(tmp_path))
    assert paths(listing) == [*([f"{folder}.jpg"] if folder < "x" else []), "x/c.jpg"] + (
        [] if folder < "x" else [f"{folder}.jpg"]
    )
    assert left_out(listing) == {"system": (2, tuple(sorted((folder, f"x/{folder}"))))}
    assert paths(list_source(f"{tmp_path}/**")) == paths(listing)
    assert paths(list_source(f"{tmp_path}/x/{folder}")) == ["deep/b.jpg"]  # who names it wants it


def test_what_systems_leave_beside_images_is_no_kind_of_file(tmp_path: Path) -> None:
    made(tmp_path, "a.jpg", "Thumbs.db", "desktop.ini", "x/THUMBS.DB", ".DS_Store", "notes.db")
    assert left_out(list_source(str(tmp_path))) == {
        "system": (3, ("Thumbs.db", "desktop.ini", "x/THUMBS.DB")),
        "hidden": (1, (".DS_Store",)),
        ".db": (1, ("notes.db",)),
    }


def test_a_glob_enters_a_system_folder_that_it_names(tmp_path: Path) -> None:
    made(tmp_path, "@eaDir/a.jpg", "x/@eaDir/b.jpg", "x/c.jpg")
    assert paths(list_source(f"{tmp_path}/*/@eaDir/*")) == ["x/@eaDir/b.jpg"]
    assert paths(list_source(f"{tmp_path}/*/*.jpg")) == ["x/c.jpg"]
    assert left_out(list_source(f"{tmp_path}/*/*.jpg")) == {"system": (1, ("@eaDir",))}


RUN = ("config.json", "checkpoints/1/state.pt", "history.parquet")


@pytest.mark.parametrize("marks", [("_cvjobs/format.json",), (".cvjobs-masks/manifest.parquet",), RUN])
def test_a_folder_of_ours_is_left_out_with_all_it_holds(tmp_path: Path, marks: tuple[str, ...]) -> None:
    own = [f"x/out/{name}" for name in (*marks, "0.jpg", "~.jpg", "sub/a.jpg", "b.txt")]
    made(tmp_path, *own, "x/c.jpg", "y.jpg")
    (tmp_path / "x/out/gone.jpg").symlink_to("nowhere")
    for source in (f"{tmp_path}", f"{tmp_path}/**"):
        listing = list_source(source)
        assert (paths(listing), failed(listing)) == (["x/c.jpg", "y.jpg"], {})
        assert left_out(listing) == {"output of cvjobs": (1, ("x/out",))}


def test_a_run_is_told_from_other_models(tmp_path: Path) -> None:
    made(tmp_path, "model/config.json", "model/model.safetensors", "model/a.jpg", "b/checkpoints/c.jpg", "b/d.jpg")
    assert paths(list_source(str(tmp_path))) == ["b/checkpoints/c.jpg", "b/d.jpg", "model/a.jpg"]


def test_a_source_that_is_an_output_itself_keeps_its_images(tmp_path: Path) -> None:
    made(tmp_path, "_cvjobs/format.json", "data/part.parquet", "a.jpg", "sub/b.jpg")
    listing = list_source(str(tmp_path))
    assert paths(listing) == ["a.jpg", "sub/b.jpg"]
    assert left_out(listing) == {"output of cvjobs": (1, ("_cvjobs",)), ".parquet": (1, ("data/part.parquet",))}


def test_an_output_larger_than_a_chunk_leaves_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvjobs.sources.folder.CHUNK", 4)
    made(tmp_path, *(f"{i}.jpg" for i in range(3)), *(f"z/{i}.jpg" for i in range(11)), "z/_cvjobs/x", "zz/a.jpg")
    assert paths(list_source(str(tmp_path))) == ["0.jpg", "1.jpg", "2.jpg", "zz/a.jpg"]


@pytest.mark.parametrize("count", range(12))
def test_rows_are_cut_wherever_they_were_flushed(count: int) -> None:
    images = listing_rows.ImageRows()
    failures = listing_rows.FailureRows()
    for i in range(11):
        images.paths.append(b"%d" % i)
        images.sizes.append(i)
        images.times.append(i)
        failures.add(b"%d" % i, "read_io", "")
        if i % 4 == 3:
            images.flush()
    images.cut(count)
    failures.cut(count)
    assert (len(images), len(failures)) == (min(count, 11),) * 2
    expected = [str(i) for i in range(min(count, 11))]
    assert images.table()["path"].to_pylist() == failures.table()["path"].to_pylist() == expected


def test_links_to_folders_are_named(tmp_path: Path) -> None:
    made(tmp_path, "real/a.jpg")
    (tmp_path / "boats").symlink_to("real")
    (tmp_path / "real/up").symlink_to("..")
    assert left_out(list_source(str(tmp_path))) == {"folder link": (2, ("boats", "real/up"))}


def test_of_many_only_the_first_names_are_kept(tmp_path: Path) -> None:
    made(tmp_path, *(f"{i}/{j}.txt" for i in range(4) for j in range(4)), "a.jpg")
    count, names = left_out(list_source(str(tmp_path)))[".txt"]
    assert (count, len(names)) == (16, EXAMPLES)


def test_what_is_left_out_in_words() -> None:
    names = {".txt": ("a.txt", "b\x1b.txt"), "hidden": (".x",)}
    assert told(reasons.named({"hidden": 1, ".txt": 7}, names)) == [
        "  skipped 7  .txt: a.txt, b\\x1b.txt, …",
        "  skipped 1  hidden: .x",
    ]
    assert told({}) == []
    lines = told(reasons.named({f".{i}": i for i in range(1, 12)}, {}))
    assert (len(lines), lines[-1]) == (9, "  skipped 6  of 3 other kinds")
    assert page_rows(reasons.named({"hidden": 1, ".txt": 7}, names)) == [
        (".txt", 7, "a.txt, b\\x1b.txt, …"),
        ("hidden", 1, ".x"),
    ]


PATTERNS = [
    (["*_small.jpg"], ["a.jpg", "raw/2019/b.jpg", "raw/c.jpg", "x/raw/d.jpg"], 2),
    (["raw"], ["a.jpg", "a_small.jpg"], 2),
    (["raw/"], ["a.jpg", "a_small.jpg"], 2),
    (["./raw/2019"], ["a.jpg", "a_small.jpg", "raw/c.jpg", "x/raw/d.jpg"], 1),
    (["raw/*/*"], ["a.jpg", "a_small.jpg", "raw/c.jpg", "x/raw/d.jpg"], 2),
    (["**/raw"], ["a.jpg", "a_small.jpg"], 2),
    (["x/**"], ["a.jpg", "a_small.jpg", "raw/2019/b.jpg", "raw/2019/b_small.jpg", "raw/c.jpg"], 1),
    (["?.jpg", "[x]"], ["a_small.jpg", "raw/2019/b_small.jpg"], 4),
    (
        ["RAW", "nothing/*"],
        ["a.jpg", "a_small.jpg", "raw/2019/b.jpg", "raw/2019/b_small.jpg", "raw/c.jpg", "x/raw/d.jpg"],
        0,
    ),
]
SHELF = ["a.jpg", "a_small.jpg", "raw/c.jpg", "raw/2019/b.jpg", "raw/2019/b_small.jpg", "x/raw/d.jpg"]


@pytest.mark.parametrize(("patterns", "expected", "count"), PATTERNS)
@pytest.mark.parametrize("version", [rules.FIRST, rules.LISTING])
def test_patterns_remove_names_and_paths(
    tmp_path: Path, patterns: list[str], expected: list[str], count: int, version: int
) -> None:
    made(tmp_path, *SHELF)
    listing = list_source(str(tmp_path), exclude=patterns, rules=version)
    assert paths(listing) == expected
    assert listing.skipped == ({"excluded": count} if count else {})
    assert paths(list_source(f"{tmp_path}/**/*.jpg", exclude=patterns, rules=version)) == expected


@pytest.mark.parametrize(("patterns", "expected", "count"), PATTERNS)
def test_patterns_remove_lines_of_a_list(tmp_path: Path, patterns: list[str], expected: list[str], count: int) -> None:
    made(tmp_path, *SHELF)
    (tmp_path / "l.csv").write_text("path,n\n" + "".join(f"{name},{i}\n" for i, name in enumerate(SHELF)))
    listing = list_source(str(tmp_path / "l.csv"), exclude=patterns)
    assert paths(listing) == expected
    assert listing.images["n"].to_pylist() == [str(i) for i, name in enumerate(SHELF) if name in expected]
    assert listing.skipped == ({"excluded": len(SHELF) - len(expected)} if count else {})


def test_a_pattern_that_begins_with_a_star_also_means_names_of_cameras(tmp_path: Path) -> None:
    made(tmp_path, "_a.jpg", "sub/_b.jpg", "c.png")
    assert paths(list_source(str(tmp_path), exclude=["*.jpg"])) == ["c.png"]
    assert paths(list_source(str(tmp_path), exclude=["sub/*.jpg"])) == ["_a.jpg", "c.png"]


def test_a_pattern_matches_undecodable_names(tmp_path: Path) -> None:
    for name in (b"caf\xe9.jpg", b"b.jpg"):
        touch(os.path.join(os.fsencode(tmp_path), name))
    assert paths(list_source(str(tmp_path), exclude=["caf?.jpg"])) == ["b.jpg"]


@pytest.mark.parametrize("pattern", ["", "/", "/data/raw", "../x", "a/../b", "a//b", ".", "a\0b"])
def test_a_pattern_that_means_nothing_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(WrongUse, match=r"--exclude .* names nothing below a source: give a name or a path"):
        list_source(str(tmp_path), exclude=[pattern])


def test_a_folder_deeper_than_a_path_may_be_is_one_failure(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):  # 5,000 bytes
        os.mkdir("d" * 250, dir_fd=here)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(os.open("b.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=below))
        os.close(here)
        here = below
    os.close(here)
    listing = list_source(str(tmp_path))
    assert listing.images.num_rows == 1 + len([path for path in paths(listing) if path.endswith("/b.jpg")])
    [(folder, code)] = failed(listing).items()
    assert (code, listing.unreadable) == ("list_vanished", (folder,))
    assert set(folder) == {"d", "/"}
