"""Sources on object stores and web servers: what is listed, which version it has, and reading what was listed."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from buckets import Bucket, made
from websites import Page, web

from cvjobs.common import rules
from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.sources.file_reading import MAX_BYTES, Unreadable
from cvjobs.sources.listing import list_source
from cvjobs.sources.reader import RemoteSource, open_source
from cvjobs.sources.rows import Listing
from cvjobs.storage import http, remote_files

pytestmark = pytest.mark.slow

NUMBERS = itertools.count()
ODD = (
    "a b.jpg",
    "ünï/ö.jpg",
    "a+b%2Fc.jpg",
    "#hash?q=1&x.jpg",
    "100%.jpg",
    "back\\slash.jpg",
    "[1]*.jpg",
    "<b>'\".JPG",
)


@pytest.fixture
def bucket(s3: str) -> Bucket:
    return made(s3, f"list{next(NUMBERS)}")


def listed(bucket: Bucket, source: str) -> Listing:
    return list_source(source, bucket.settings)


def paths(listing: Listing) -> list[str]:
    return sorted(listing.images["path"].to_pylist())


def read(bucket: Bucket, listing: Listing) -> dict[str, bytes]:
    source = open_source(listing.root, listing.base, bucket.settings)
    rows = listing.images
    stamps = rows["modified"].cast(pa.int64()).to_pylist()
    triples = zip(rows["path"].to_pylist(), rows["bytes"].to_pylist(), stamps, strict=True)
    return {path: source.read(path, size, stamp) for path, size, stamp in triples}


def versions(listing: Listing) -> dict[str, int]:
    return dict(zip(listing.images["path"].to_pylist(), listing.images["version"].to_pylist(), strict=True))


def test_a_prefix_is_listed_by_the_rules_of_a_folder(bucket: Bucket, tmp_path: Path) -> None:
    names = [
        *("a.jpg", "b.PNG", "sub/c.webp", "sub/deep/d.tiff", ".hidden/e.jpg", ".hidden/f.jpg", "sub/_f/g.jpg"),
        *("_h.jpg", "notes.txt", "sub/more.txt", "README", ".dot"),
    ]
    for name in names:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    bucket.upload(tmp_path / "photos", "photos")
    bucket.put("photos2/other.jpg", b"x")
    bucket.put("photos/folder", b"")  # what some tools make for folders
    before = list_source(bucket.url("photos"), bucket.settings, rules=rules.FIRST)
    local = list_source(str(tmp_path / "photos"), rules=rules.FIRST)
    assert paths(before) == paths(local) == ["a.jpg", "b.PNG", "sub/c.webp", "sub/deep/d.tiff"]
    assert before.skipped == local.skipped == {"hidden": 4, ".txt": 2, "no extension": 1}
    found, local = listed(bucket, bucket.url("photos")), list_source(str(tmp_path / "photos"))
    assert paths(found) == paths(local) == ["_h.jpg", "a.jpg", "b.PNG", "sub/_f/g.jpg", "sub/c.webp", "sub/deep/d.tiff"]
    assert found.skipped == local.skipped == {"hidden": 2, ".txt": 2, "no extension": 1}
    assert found.left_out == local.left_out
    assert sorted(found.images["image_id"].to_pylist()) == sorted(local.images["image_id"].to_pylist())
    assert found.images.schema == local.images.schema
    assert (found.source, found.root) == (bucket.url("photos"), bucket.url("photos"))
    assert listed(bucket, bucket.url("photos") + "/").source == found.source
    assert read(bucket, found) == {name: name.encode() for name in paths(found)}
    stamps = found.images["modified"].cast(pa.int64()).to_pylist()
    assert all(abs(stamp - time.time_ns()) < 600e9 for stamp in stamps)


MIXED = (
    *("A.jpg", "_DSC1.jpg", "b.jpg", "@eaDir/c.jpg", "x/@eaDir/deep/d.jpg", "x/Thumbs.db", "x/e.jpg", "x/raw/f.jpg"),
    *(
        "x/out/0.jpg",
        "x/out/_cvjobs/format.json",
        "x/out/z/g.jpg",
        "x/out/z.txt",
        "masks/.cvjobs-masks/m",
        "masks/h.png",
    ),
    *("run/a.jpg", "run/checkpoints/1", "run/config.json", "run/history.parquet", "_cvjobs/k.jpg", "y.jpg", ".z/l.jpg"),
)


def test_what_is_left_out_is_the_same_as_in_a_folder(bucket: Bucket, tmp_path: Path) -> None:
    for name in MIXED:
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_bytes(b"x")
    bucket.upload(tmp_path / "p", "p")
    patterns: tuple[tuple[str, ...], ...] = ((), ("raw", "y*"), ("x/*.jpg", "**/raw"), ("x",))
    for pattern, exclude in itertools.product(("", "/**", "/*/*.jpg"), patterns):
        found = list_source(bucket.url("p") + pattern, bucket.settings, exclude=exclude)
        local = list_source(f"{tmp_path}/p{pattern}", exclude=exclude)
        assert paths(found) == paths(local)
        assert pattern == "/*/*.jpg" or found.images.num_rows == (4 if exclude else 6)
        # A bucket has no folders of its own, which a glob would name and pass over.
        without = {reason: count for reason, count in local.skipped.items() if reason != "folder"}
        assert {reason: count for reason, count in found.skipped.items() if reason != "folder"} == without
        names = {reason: set(names) for reason, names in local.left_out.items() if reason in without}
        assert {reason: set(names) for reason, names in found.left_out.items()} == names


def test_a_whole_bucket(bucket: Bucket) -> None:
    assert listed(bucket, bucket.url("")).images.num_rows == 0
    bucket.put("a.jpg", b"a")
    found = listed(bucket, bucket.url(""))
    assert (paths(found), found.root, found.source) == (["a.jpg"], bucket.url(""), bucket.url(""))
    assert read(bucket, found) == {"a.jpg": b"a"}


def test_odd_keys(bucket: Bucket, tmp_path: Path) -> None:
    for name in ODD:
        bucket.put(f"odd dir+/{name}", name.encode())
    found = listed(bucket, bucket.url("odd dir+"))
    assert {path.replace("\\x5c", "\\"): content for path, content in read(bucket, found).items()} == {
        name: name.encode() for name in ODD
    }
    (tmp_path / "list.txt").write_text("\n".join(bucket.url(f"odd dir+/{name}") for name in ODD))
    named = list_source(str(tmp_path / "list.txt"), bucket.settings)
    assert sorted(read(bucket, named).values()) == sorted(name.encode() for name in ODD)
    for name in ODD:
        assert read(bucket, listed(bucket, bucket.url(f"odd dir+/{name}"))) == {
            name.rpartition("/")[2].replace("\\", "\\x5c"): name.encode()
        }


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a/*/x-*.jpg", ["b/x-1.jpg", "c/x-2.jpg"]),
        ("a/**/*.jpg", ["b/deep/x-4.jpg", "b/x-1.jpg", "c/x-2.jpg", "c/y-3.jpg", "top.jpg"]),
        ("a/*.jpg", ["top.jpg"]),
        ("a/_*/*.jpg", ["_d/x-5.jpg"]),
        ("*/top.jpg", ["a/top.jpg"]),
    ],
)
def test_a_glob(bucket: Bucket, tmp_path: Path, pattern: str, expected: list[str]) -> None:
    names = ("b/x-1.jpg", "c/x-2.jpg", "c/y-3.jpg", "b/deep/x-4.jpg", "_d/x-5.jpg", "top.jpg", "b/x-6.txt")
    for name in names:
        bucket.put(f"a/{name}", name.encode())
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).write_bytes(b"x")
    before = list_source(bucket.url(pattern), bucket.settings, rules=rules.FIRST)
    assert paths(before) == paths(list_source(f"{tmp_path}/{pattern}", rules=rules.FIRST)) == expected
    found, local = listed(bucket, bucket.url(pattern)), list_source(f"{tmp_path}/{pattern}")
    more = ["_d/x-5.jpg"] * (pattern in ("a/*/x-*.jpg", "a/**/*.jpg"))
    assert paths(found) == paths(local) == sorted([*expected, *more])
    assert found.source == bucket.url(pattern)
    assert sorted(read(bucket, found)) == sorted([*expected, *more])


def test_versions_follow_the_content(bucket: Bucket) -> None:
    for name in ("same", "touched", "changed", "gone"):
        bucket.put(f"p/{name}.jpg", b"one")
    before = versions(listed(bucket, bucket.url("p")))
    bucket.put("p/touched.jpg", b"one")
    bucket.put("p/changed.jpg", b"two")
    bucket.delete("p/gone.jpg")
    after = versions(listed(bucket, bucket.url("p")))
    assert {name for name in after if after[name] == before[name]} == {"same.jpg", "touched.jpg"}
    assert "gone.jpg" not in after


def test_a_list_on_the_bucket_names_objects_files_and_pages(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "local.jpg").write_bytes(b"local")
    bucket.put("photos/a.jpg", b"a")
    bucket.put("lists/near.jpg", b"near")
    with web({"/p/w%20eb.jpg?v=1": Page(b"web")}) as site:
        uris = [
            *(bucket.url("photos/a.jpg"), "near.jpg", "../photos/a.jpg", str(tmp_path / "local.jpg")),
            *(f"file://{tmp_path}/local.jpg", f"{site}/p/w%20eb.jpg?v=1", bucket.url("photos/gone.jpg")),
            *(f"{site}/none.jpg", "s3://no-such-bucket-here/x.jpg", bucket.url("bad//key.jpg"), "no.jpg"),
        ]
        bucket.put("lists/all.csv", ("path,note\n" + "".join(f"{uri},n{i}\n" for i, uri in enumerate(uris))).encode())
        found = listed(bucket, bucket.url("lists/all.csv"))
        assert found.root == ""
        assert read(bucket, found) == dict(
            zip(uris[:6], (b"a", b"near", b"a", b"local", b"local", b"web"), strict=True)
        )
    assert found.images["note"].to_pylist() == [f"n{i}" for i in range(6)]
    assert found.failures["path"].to_pylist() == uris[6:]
    assert set(found.failures["code"].to_pylist()) == {"list_vanished"}
    assert "404" in found.failures["detail"][1].as_py()


@pytest.mark.parametrize("suffix", ["txt", "tsv", "parquet"])
def test_lists_of_every_kind(bucket: Bucket, tmp_path: Path, suffix: str) -> None:
    import pyarrow.parquet as pq

    bucket.put("a.jpg", b"a")
    table = pa.table({"path": [bucket.url("a.jpg")], "k": ["v"]})
    text = f"path\tk\n{bucket.url('a.jpg')}\tv\n" if suffix == "tsv" else f"{bucket.url('a.jpg')}\n"
    if suffix == "parquet":
        pq.write_table(table, tmp_path / "l.parquet")
    else:
        (tmp_path / f"l.{suffix}").write_text(text)
    bucket.put(f"l.{suffix}", (tmp_path / f"l.{suffix}").read_bytes())
    for place in (str(tmp_path / f"l.{suffix}"), bucket.url(f"l.{suffix}")):
        found = listed(bucket, place)
        assert read(bucket, found) == {bucket.url("a.jpg"): b"a"}
        assert "k" in found.images.schema.names or suffix == "txt"


def test_names_as_our_exports_write_them_are_objects(bucket: Bucket) -> None:
    for key in ("back\\slash.jpg", "=a.jpg"):
        bucket.put(key, key.encode())
    bucket.put("l.csv", b"path,label\nback\\x5cslash.jpg,'=x\n'=a.jpg,y\n'=gone.jpg,z\n")
    found = listed(bucket, bucket.url("l.csv"))
    assert read(bucket, found) == {"back\\x5cslash.jpg": b"back\\slash.jpg", "=a.jpg": b"=a.jpg"}
    assert found.images["label"].to_pylist() == ["=x", "y"]
    assert found.failures["path"].to_pylist() == ["'=gone.jpg"]


def test_a_carried_column_is_part_of_the_version(bucket: Bucket) -> None:
    bucket.put("a.jpg", b"a")
    found = []
    for note in ("x", "y", "x"):
        bucket.put("l.csv", f"path,note\n{bucket.url('a.jpg')},{note}\n".encode())
        found.append(versions(listed(bucket, bucket.url("l.csv"))))
    assert found[0] == found[2] != found[1]


def on_the_web(site: str, pages: dict[str, Page], tmp_path: Path) -> Listing:
    (tmp_path / "l.txt").write_text("".join(f"{site}{path}\n" for path in pages))
    return list_source(str(tmp_path / "l.txt"))


@pytest.mark.parametrize(
    "page",
    [
        Page(b"content"),
        Page(b"content", head=405),
        Page(b"content", head=403),
        Page(b"content", length=False),
        Page(b"content", tag=None),
        Page(b"content", tag='W/"weak"', modified=None),
        Page(b"content", tag=None, modified=None),
        Page(b"content", modified="yesterday"),
        Page(b"content", failures=2),
    ],
)
def test_servers_of_all_kinds(page: Page, tmp_path: Path) -> None:
    with web({"/a.jpg": page}) as site:
        found = on_the_web(site, {"/a.jpg": page}, tmp_path)
        assert found.failures.num_rows == 0
        assert found.images["bytes"].to_pylist() == [7]
        assert list(read(Bucket("", ""), found).values()) == [b"content"]
        before = versions(found)
        page.content, page.tag = b"CONTENT", page.tag and page.tag.replace("t1", "t2").replace("weak", "strong")
        if page.modified:
            page.modified = "Tue, 02 Jan 2024 00:00:00 GMT"
        after = versions(on_the_web(site, {"/a.jpg": page}, tmp_path))
    assert (before != after) == bool(page.tag or page.modified)


def test_a_page_is_a_source_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BACKOFF", 0.01)
    with web({"/d/a.jpg?x=1": Page(b"one")}) as site:
        found = list_source(f"{site}/d/a.jpg?x=1")
        assert (found.root, paths(found)) == (f"{site}/d", ["a.jpg?x=1"])
        assert read(Bucket("", ""), found) == {"a.jpg?x=1": b"one"}
        with pytest.raises(WrongUse, match=r"none\.jpg cannot be read \(404"):
            list_source(f"{site}/none.jpg")
    with pytest.raises(JobFailed, match="cannot be reached"):
        list_source(f"{site}/d/a.jpg?x=1")


def test_a_dead_server_stops_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cvjobs.sources import locations

    monkeypatch.setattr(locations, "LOST", 5)
    monkeypatch.setattr(http, "BACKOFF", 0.01)
    with web({}) as site:
        pass
    (tmp_path / "l.txt").write_text("".join(f"{site}/{i}.jpg\n" for i in range(8)))
    with pytest.raises(JobFailed, match="5 images of the list in a row could not be asked for"):
        list_source(str(tmp_path / "l.txt"))


def one(bucket: Bucket, key: str) -> tuple[RemoteSource, tuple[str, int, int]]:
    found = listed(bucket, bucket.url(key.rpartition("/")[0]))
    rows = found.images.filter(pc.equal(found.images["path"], key.rpartition("/")[2]))
    source = open_source(found.root, found.base, bucket.settings)
    assert isinstance(source, RemoteSource)
    (stamp,) = rows["modified"].cast(pa.int64()).to_pylist()
    return source, (rows["path"][0].as_py(), rows["bytes"][0].as_py(), stamp)


def failure(source: RemoteSource, row: tuple[str, int, int]) -> str:
    with pytest.raises(Unreadable) as error:
        source.read(*row)
    return error.value.failure.code


def test_what_happens_to_objects_after_they_were_listed(bucket: Bucket) -> None:
    for name in ("gone", "longer", "later", "empty"):
        bucket.put(f"p/{name}.jpg", b"" if name == "empty" else b"one")
    gone, longer, later, empty = (one(bucket, f"p/{name}.jpg") for name in ("gone", "longer", "later", "empty"))
    bucket.delete("p/gone.jpg")
    bucket.put("p/longer.jpg", b"longer")
    assert failure(*gone) == "read_vanished"
    assert failure(*longer) == "changed_during_run"
    source, (path, size, stamp) = later
    assert failure(source, (path, size, stamp - 10**9)) == "changed_during_run"
    assert failure(*empty) == "empty_file"
    assert failure(source, (path, MAX_BYTES + 1, stamp)) == "too_large_file"


def test_large_objects_are_read_in_ranges(bucket: Bucket) -> None:
    content = bytes(range(256)) * (remote_files.LARGE // 256) + b"tail" * 300_000
    bucket.put("p/large.jpg", content)
    source, row = one(bucket, "p/large.jpg")
    assert source.read(*row) == content
    bucket.put("p/large.jpg", content[:-5])
    assert failure(source, row) == "changed_during_run"
    bucket.put("p/large.jpg", b"short")
    assert failure(source, row) == "changed_during_run"


@pytest.mark.parametrize(
    ("source", "error", "sentence"),
    [
        ("s3://no-such-bucket/photos", WrongUse, "There is no bucket s3://no-such-bucket"),
        ("s3://{bucket}/nothing", WrongUse, r"There is no s3://.*/nothing: give a prefix"),
        ("s3://{bucket}/nothing/*.jpg", WrongUse, r"There is no s3://.*/nothing: give"),
        ("s3:///photos", WrongUse, "names no bucket"),
        ("s3://{bucket}/bad", WrongUse, r"holds a key that cannot be read \(.*bad//b\.jpg.*\): rename it"),
    ],
)
def test_sources_that_cannot_be_listed(bucket: Bucket, source: str, error: type[Exception], sentence: str) -> None:
    bucket.put_raw("bad//b.jpg", b"x")
    with pytest.raises(error, match=sentence):
        listed(bucket, source.format(bucket=bucket.name))
