"""Lists from others, end to end: what they name and may not is an error row, and no error tells what a file holds."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import Ended, codes, embed, errors, exact, here, opened, rows, sentence
from websites import Page, speaking, web

import cvjobs
from cvjobs.dataset import snapshot
from cvjobs.dataset.snapshot_reader import open_newest
from cvjobs.storage.local_store import LocalStore

SECRET = b"root:x:0:0:SECRET:/root:/bin/bash\n"


@pytest.fixture
def source(photos: Path, tmp_path: Path) -> Path:
    """A folder of four photos, one of them a link to a fifth outside of it, and a list of all that is private here."""
    images = sorted(photos.rglob("*.jpg"))
    folder = tmp_path / "from-others"
    folder.mkdir()
    for number in range(3):
        shutil.copy2(images[number], folder / f"{number}.jpg")
    shutil.copy2(images[3], tmp_path / "private.jpg")
    (folder / "3.jpg").symlink_to("../private.jpg")
    (tmp_path / "passwd").write_bytes(SECRET)
    lines = [*(f"{number}.jpg" for number in range(4)), f"{tmp_path}/private.jpg", f"file://{tmp_path}/passwd"]
    (folder / "list.txt").write_text("\n".join(lines))
    return folder / "list.txt"


def computed(ended: Ended) -> tuple[int, int, int]:
    """How many images a command computed and reused, and how many failed."""
    assert ended.code in (0, 3), ended
    found = json.loads(ended.out)
    return found["computed"], found["reused"], found["failed"]


def told(out: Path) -> str:
    """All that an output says: its pages and records, and every value of its tables."""
    tables = [str(pq.read_table(file).to_pylist()) for file in out.rglob("*.parquet")]
    return "\n".join(
        [*tables, *(file.read_bytes().decode(errors="replace") for file in out.rglob("*") if file.is_file())]
    )


@pytest.mark.slow
def test_what_confine_refuses_is_an_error_also_where_it_was_computed(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert computed(embed(source, out, "--json")) == (6, 0, 1)
    assert codes(out) == {"not_an_image": 1}
    before = snapshot.latest(LocalStore(str(out))).fingerprint
    # What was computed of entries that are refused now goes; the rest stands.
    assert computed(embed(source, out, "--json", "--confine")) == (3, 3, 3)
    assert codes(out) == {"refused": 3}
    assert rows(out)["path"].to_pylist() == ["0.jpg", "1.jpg", "2.jpg"]
    assert set(errors(out)["detail"].to_pylist()) == {
        "it lies outside of the list's own folder or bucket, as --confine asks"
    }
    assert set(errors(out)["stage"].to_pylist()) == {"list"}
    assert here("verify", out, "--source", source, "--confine").code == 0
    assert snapshot.latest(LocalStore(str(out))).fingerprint == before
    assert open_newest(LocalStore(str(out))).confined
    # And comes back without it.
    assert computed(embed(source, out, "--json")) == (3, 3, 1)
    assert len(rows(out)) == 5
    exact(out, source, 6)
    assert not open_newest(LocalStore(str(out))).confined


@pytest.mark.faults
def test_confine_is_a_key_of_the_yaml_and_of_python(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cvjobs.yaml").write_text("embed: {model: thumbnail/4, confine: true}\ntrain: {confine: true}\n")
    assert computed(here("embed", source, "-o", "out", "--json")) == (6, 0, 3)
    said = cvjobs.embed(str(source), "again", model="thumbnail/4", confine=True)
    assert said.failures == {"refused": 3}
    (source.parent / "all.csv").write_text(f"path,label\n{tmp_path}/private.jpg,a\n../private.jpg,b\n3.jpg,c\n")
    line = sentence(here("train", source.parent / "all.csv", "-o", "run", "--model", "small/cnn"), 2)
    assert "3 refused" in line


@pytest.mark.faults
def test_queries_and_pages_are_confined(source: Path, tmp_path: Path) -> None:
    """What shows the images of a confined output, reads them confined, too: a link may have come since."""
    out, index = tmp_path / "out", tmp_path / "index"
    embed(source, out, "--confine")
    image = source.parent / "0.jpg"
    stamp = image.stat().st_mtime_ns
    image.rename(tmp_path / "moved.jpg")
    os.utime(tmp_path / "moved.jpg", ns=(stamp, stamp))
    image.symlink_to("../moved.jpg")
    assert here("index", out, "-o", index).code == 0
    page = (index / "report.html").read_text()
    assert page.count("data:image/jpeg") == 6, "of three photos with two neighbours each, one is not shown thrice"
    assert "refused" in page
    assert here("index", out, "-o", index, "--rebuild").code == 0
    ended = here("query", index, source, "--confine", "-k", "1", "--json", "--html", tmp_path / "page.html")
    assert json.loads(ended.out)["failures"] == {"refused": 4}
    ended = here("query", index, source, "-k", "1", "--json")
    assert json.loads(ended.out)["failures"] == {"not_an_image": 1}
    # The photo that is a link now gets its error, once; refused rows stand after that.
    assert [computed(embed(source, out, "--json", "--confine"))[0] for _ in range(2)] == [1, 0]


@pytest.mark.slow
def test_no_error_tells_what_a_file_or_a_server_holds(source: Path, tmp_path: Path) -> None:
    (tmp_path / "P3").write_bytes(b"P3 SECRETSECRETSECRET " + SECRET)
    (tmp_path / "P6").write_bytes(b"P6 12 SECRET " + SECRET)
    (tmp_path / "BM").write_bytes(b"BM" + SECRET * 9)
    (tmp_path / "II").write_bytes(b"II*\0" + SECRET * 9)
    (tmp_path / "GIF").write_bytes(b"GIF89a" + SECRET * 9)
    (tmp_path / "PNG").write_bytes(b"\x89PNG\r\n\x1a\n" + SECRET * 9)
    (tmp_path / "JPEG").write_bytes(b"\xff\xd8\xff\xe0" + SECRET * 9)
    (tmp_path / "AVIF").write_bytes(b"\0\0\0\x1cftypavif" + SECRET * 9)
    (tmp_path / "WEBP").write_bytes(b"RIFF\x30\0\0\0WEBP" + SECRET * 9)
    (tmp_path / "HEIC").write_bytes(b"\0\0\0\x1cftypheic" + SECRET * 9)
    names = ["passwd", "P3", "P6", "BM", "II", "GIF", "PNG", "JPEG", "AVIF", "WEBP", "HEIC"]
    gone = speaking(b"HTTP/1.1 404 SECRET\r\nContent-Length: 0\r\n\r\n")
    with web({"/a.jpg": Page(SECRET)}) as site, gone as other:
        lines = [f"{site}/a.jpg", *(f"../{name}" for name in names), f"file://{tmp_path}/passwd", f"{other}/a.jpg"]
        source.write_text("\n".join([*lines, f"{site}/none.jpg"]))
        assert embed(source, tmp_path / "out").code == 3
    assert len(errors(tmp_path / "out")) == len(names) + 4
    assert "SECRET" not in told(tmp_path / "out")
    assert "root:" not in told(tmp_path / "out")


@pytest.mark.faults
def test_entries_without_sense_are_errors_and_the_page_stays_small(source: Path, tmp_path: Path) -> None:
    long = "a" * 60_000  # a line may have 64 KiB
    lines = ["0.jpg", long, f"http://127.0.0.1:1/{long}", f"http://{long}/a.jpg", f"s3://{long}/a.jpg", "nul\0.jpg"]
    lines += [f"s3://b\0/{long}", "http://\0/", "http://[/a", "http://a:99999/x", "\x1b[31m.jpg", "s3:///x"]
    source.write_text("\n".join(lines))
    out = tmp_path / "out"
    ended = embed(
        source, out, "--storage-option", "endpoint=http://127.0.0.1:1", "--storage-option", "skip_signature=true"
    )
    assert ended.code == 3, ended
    assert len(rows(out)) == 1
    assert sorted(errors(out)["path"].to_pylist()) == sorted(lines[1:])
    assert (out / "report.html").stat().st_size < 200_000
    assert len(opened(out).to_pandas()) == 1
