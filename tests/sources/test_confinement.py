"""``--confine``: what a list from others may name is what lies below it, and the public web."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from buckets import made
from trees import failed, paths, touch, write_table
from websites import Page, web

from cvjobs.common.errors import WrongUse
from cvjobs.sources.confinement import Confinement
from cvjobs.sources.file_reading import Unreadable
from cvjobs.sources.listing import list_source
from cvjobs.sources.reader import open_source
from cvjobs.sources.rows import Listing
from cvjobs.storage.refusal import Refused


def others(folder: Path, lines: list[str]) -> Path:
    """A folder with images, links that leave it and links that do not, beside a secret; and a list."""
    touch(folder / "secret.txt", b"SECRET")
    touch(folder / "lists/a.jpg", b"a")
    touch(folder / "lists/deep/b.jpg", b"bb")
    os.symlink("../secret.txt", folder / "lists/out.jpg")
    os.symlink("..", folder / "lists/up")
    os.symlink("deep/b.jpg", folder / "lists/in.jpg")
    os.symlink(folder / "lists/a.jpg", folder / "lists/whole.jpg")
    os.symlink("loop.jpg", folder / "lists/loop.jpg")
    os.symlink("out.jpg", folder / "lists/twice.jpg")
    (folder / "lists/l.txt").write_text("\n".join(lines))
    return folder / "lists/l.txt"


def read(listing: Listing, confine: bool = True) -> dict[str, bytes | str]:
    """The bytes of each listed image, or the code of why there are none."""
    source = open_source(listing.root, listing.base, {}, confine)
    columns = (listing.images["path"], listing.images["bytes"], listing.images["modified"].cast("int64"))
    found: dict[str, bytes | str] = {}
    for path, size, modified in zip(*(column.to_pylist() for column in columns), strict=True):
        try:
            found[path] = source.read(path, size, modified)
        except Unreadable as error:
            found[path] = error.failure.code
    return found


def test_entries_outside_of_the_list_are_refused_and_links_count_where_they_lead(tmp_path: Path) -> None:
    here = tmp_path / "lists"
    inside = ["a.jpg", "deep/b.jpg", "in.jpg", "whole.jpg", "up/lists/a.jpg", "deep/../a.jpg", f"{here}/a.jpg"]
    inside += [f"file://{here}/a.jpg", f"{here}/../lists/deep/b.jpg"]
    outside = ["../secret.txt", f"{tmp_path}/secret.txt", f"file://{tmp_path}/secret.txt", "out.jpg", "up/secret.txt"]
    outside += ["/etc/passwd", "file:///etc/passwd", "file://localhost/etc/%70asswd", "/proc/self/environ", "/dev/zero"]
    outside += [
        "deep/../../secret.txt",
        "../lists-not/a.jpg",
        "../none",
        "twice.jpg",
        ".",
        "..",
        "/",
        "s3://bucket/a.jpg",
    ]
    outside += ["up/none", "gopher://host/x", "file://host/x", "s3:///x"]
    source = others(tmp_path, [*inside, *outside, "none.jpg", "loop.jpg"])
    listing = list_source(str(source), confine=True)
    assert listing.images["path"].to_pylist() == inside
    assert failed(listing) == dict.fromkeys(outside, "refused") | dict.fromkeys(
        ("none.jpg", "loop.jpg"), "list_vanished"
    )
    assert set(read(listing).values()) == {b"a", b"bb"}


def test_one_s_own_lists_go_on_as_they_did(tmp_path: Path) -> None:
    with web({"/a.jpg": Page(b"web")}) as site:
        lines = ["a.jpg", "../secret.txt", f"{tmp_path}/secret.txt", "out.jpg", f"{site}/a.jpg"]
        listing = list_source(str(others(tmp_path, lines)))
        assert read(listing, confine=False) == dict(zip(lines, [b"a", *[b"SECRET"] * 3, b"web"], strict=True))


def test_whether_a_refused_file_is_there_is_not_told(tmp_path: Path) -> None:
    there, gone = f"{tmp_path}/secret.txt", f"{tmp_path}/none.txt"
    failures = list_source(str(others(tmp_path, [there, gone])), confine=True).failures
    assert len(set(failures["detail"].to_pylist())) == len(set(failures["code"].to_pylist())) == 1


def test_a_folder_that_is_a_link_is_its_own_folder(tmp_path: Path) -> None:
    others(tmp_path, ["a.jpg", f"{tmp_path}/lists/a.jpg", f"{tmp_path}/linked/deep/b.jpg"])
    os.symlink("lists", tmp_path / "linked")
    listing = list_source(f"{tmp_path}/linked/l.txt", confine=True)
    assert listing.failures.num_rows == 0
    assert list(read(listing).values()) == [b"a", b"a", b"bb"]


@pytest.mark.parametrize("pattern", ["", "/*"])
def test_links_out_of_a_folder_are_refused(tmp_path: Path, pattern: str) -> None:
    others(tmp_path, [])
    for confine in (False, True):
        listing = list_source(f"{tmp_path}/lists{pattern}", confine=confine)
        out = {"out.jpg": "refused", "twice.jpg": "refused"} if confine else {}
        assert failed(listing) == {"loop.jpg": "list_vanished", **out}
        assert {"a.jpg", "in.jpg", "whole.jpg"} <= set(read(listing, confine)) - set(out)
        assert ("out.jpg" in paths(listing)) is not confine


def test_a_link_that_is_made_after_the_listing_is_refused(tmp_path: Path) -> None:
    listing = list_source(str(others(tmp_path, ["a.jpg", "deep/b.jpg"])), confine=True)
    touch(tmp_path / "other/b.jpg", b"SS")
    (tmp_path / "lists/a.jpg").unlink()
    touch(tmp_path / "a.jpg", b"S")
    os.symlink("../a.jpg", tmp_path / "lists/a.jpg")
    os.rename(tmp_path / "lists/deep", tmp_path / "lists/was")
    os.symlink("../other", tmp_path / "lists/deep")
    assert read(listing, confine=False) == {"a.jpg": b"S", "deep/b.jpg": b"SS"}
    assert read(listing) == {"a.jpg": "refused", "deep/b.jpg": "refused"}


def test_what_was_opened_is_looked_at(tmp_path: Path) -> None:
    """A link that is swapped between the look and the opening gains nothing."""
    others(tmp_path, [])
    confinement = Confinement(os.fsencode(tmp_path / "lists"))
    for name, lies_outside in (("lists/a.jpg", False), ("lists/in.jpg", False), ("lists/out.jpg", True)):
        descriptor = os.open(tmp_path / name, os.O_RDONLY)
        try:
            if lies_outside:
                with pytest.raises(Refused, match="--confine"):
                    confinement.check_opened(descriptor)
            else:
                confinement.check_opened(descriptor)
        finally:
            os.close(descriptor)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "lst"])
def test_lists_of_every_kind_are_confined(tmp_path: Path, suffix: str) -> None:
    others(tmp_path, [])
    entries = ["a.jpg", "/etc/passwd", "out.jpg"]
    if suffix == "lst":
        (tmp_path / "lists/l.lst").write_text("\n".join(entries))
    else:
        write_table(tmp_path / f"lists/l.{suffix}", {"path": entries, "label": ["x", "y", "z"]})
    listing = list_source(f"{tmp_path}/lists/l.{suffix}", confine=True)
    assert paths(listing) == ["a.jpg"]
    assert failed(listing) == {"/etc/passwd": "refused", "out.jpg": "refused"}


def test_private_addresses_are_refused_also_behind_redirects(tmp_path: Path) -> None:
    pages = {"/a.jpg": Page(b"web"), "/b.jpg": Page(b"", location="/a.jpg")}
    with web(pages) as site:
        port = site.rpartition(":")[2]
        lines = [f"{site}/a.jpg", f"{site}/b.jpg", f"http://[::ffff:127.0.0.1]:{port}/a.jpg", f"http://0:{port}/a.jpg"]
        listing = list_source(str(others(tmp_path, [*lines, "a.jpg"])), confine=True)
        assert failed(listing) == dict.fromkeys(lines, "refused")
        assert [page.asked for page in pages.values()] == [[], []]
        # A name that meant a public address when it was listed.
        listing = list_source(str(others(tmp_path / "own", [lines[0]])))
        assert read(listing) == {lines[0]: "refused"}
        assert read(listing, confine=False) == {lines[0]: b"web"}


def test_a_list_of_a_private_server_is_read_and_its_entries_are_refused(tmp_path: Path) -> None:
    entries = ["a.jpg", "/etc/passwd", f"file://{tmp_path}/x", "s3://bucket/a.jpg"]
    there = Page(b"path\nSECRET\n")
    with web({"/there.csv": there}) as other:
        away = Page(b"", location=f"{other.replace('127.0.0.1', '127.0.0.2')}/there.csv")
        with web({"/d/l.txt": Page("\n".join(entries).encode()), "/d/a.jpg": Page(b"a"), "/away.csv": away}) as site:
            listing = list_source(f"{site}/d/l.txt", confine=True)
            assert failed(listing) == dict.fromkeys(entries, "refused")
            with pytest.raises(WrongUse, match="not a public one"):
                list_source(f"{site}/away.csv", confine=True)
    assert there.asked == []


def test_a_metadata_address_is_no_source() -> None:
    for source in ("http://169.254.169.254/latest/l.csv", "http://[fe80::1%1]/a.jpg"):
        with pytest.raises(WrongUse, match="metadata"):
            list_source(source)


def test_entries_outside_of_the_bucket_or_the_prefix_are_refused(s3: str, tmp_path: Path) -> None:
    bucket = made(s3, "confined")
    for key in ("lists/a.jpg", "lists/deep/b.jpg", "lists-not/c.jpg", "d.jpg"):
        bucket.put(key, b"x")
    inside = ["a.jpg", "deep/b.jpg", bucket.url("lists/a.jpg"), "deep/../a.jpg"]
    outside = ["../d.jpg", "../lists-not/c.jpg", bucket.url("d.jpg"), bucket.url("lists-not/c.jpg"), "/etc/passwd"]
    outside += [bucket.url("lists/../d.jpg"), bucket.url("lists"), "s3://other/lists/a.jpg", "gs://x/lists/a.jpg"]
    outside += [f"file://{tmp_path}/x.jpg", "../../other/lists/a.jpg", "http://127.0.0.1:1/a.jpg"]
    bucket.put("lists/l.txt", "\n".join([*inside, *outside]).encode())
    listing = list_source(bucket.url("lists/l.txt"), bucket.settings, confine=True)
    assert listing.images["path"].to_pylist() == inside
    assert failed(listing) == dict.fromkeys(outside, "refused")
    source = open_source("", listing.base, bucket.settings, confine=True)
    with pytest.raises(Unreadable, match="--confine"):
        source.read(bucket.url("d.jpg"), 1, 0)
    whole = list_source(bucket.url(""), bucket.settings, confine=True)
    assert "d.jpg" in paths(whole)
    assert open_source(whole.root, "", bucket.settings, confine=True)


@pytest.mark.parametrize(
    "name", ["a?b", "a#b", "a%2fb", "a\\b", "..", "a b", "x@169.254.169.254", "\x01", "bë", "b" * 300]
)
def test_a_bucket_s_name_cannot_become_another_host(name: str, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text(f"s3://{name}/a.jpg")
    listing = list_source(str(tmp_path / "l.txt"), {"virtual_hosted_style_request": "true", "region": "x"})
    assert list(failed(listing).values()) == ["list_vanished"]
    assert listing.failures["detail"].to_pylist() == ["no bucket has such a name"]
