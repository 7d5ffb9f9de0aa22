"""What a listing leaves out is told by every command that lists, and outputs of earlier rules go on by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Ended, embed, here, rows, sentence, verify
from PIL import Image
from toy import forge

pytestmark = pytest.mark.slow

NAMES = ("a.png", "b.png", "raw/c.png", "raw/d.png", "e.png", "f.png")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six images, and seven things that are none."""
    for i, name in enumerate(NAMES):
        place = tmp_path / "source" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (40 * i, 90, 200)).save(place)
    root = tmp_path / "source"
    (root / "linked").symlink_to("raw")
    for name in ("notes.txt", "raw/b\x1b[1m.txt", ".DS_Store", "@eaDir/a.png", "out/_cvjobs/x.png", "Thumbs.db"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


SKIPPED = {".txt": 2, "system": 2, "hidden": 1, "folder link": 1, "output of cvjobs": 1}
FIRST = {
    ".txt": {"count": 2, "first": ["notes.txt", "raw/b\x1b[1m.txt"]},
    "system": {"count": 2, "first": ["@eaDir", "Thumbs.db"]},
    "hidden": {"count": 1, "first": [".DS_Store"]},
    "folder link": {"count": 1, "first": ["linked"]},
    "output of cvjobs": {"count": 1, "first": ["out"]},
}
LINES = [
    "  skipped 2  .txt: notes.txt, raw/b\\x1b[1m.txt",
    "  skipped 2  system: @eaDir, Thumbs.db",
    "  skipped 1  hidden: .DS_Store",
    "  skipped 1  folder link: linked (not followed: name it as the source, or its images in a list)",
    "  skipped 1  output of cvjobs: out",
]


def told(ended: Ended) -> list[str]:
    assert ended.code == 0, ended
    return [line for line in (ended.out + ended.err).splitlines() if line.startswith("  skipped")]


def said(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended
    record: dict[str, Any] = json.loads(ended.out)
    assert sum(record["skipped_by"].values()) == record.get("skipped", sum(record["skipped_by"].values()))
    assert record["skipped_by"].keys() == record["left_out"].keys()
    return record


def test_a_batch_job_tells_it_on_the_terminal_in_json_and_on_its_page(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    forecast = said(embed(source, out, "--dry-run", "--json"))
    assert (forecast["skipped_by"], forecast["left_out"]) == (SKIPPED, FIRST)
    first = embed(source, out)
    assert first.out.startswith("13 listed = 6 ok + 0 failed + 7 skipped, missing 0\n")
    assert sorted(told(first)) == sorted(LINES)
    page = (out / "report.html").read_text()
    assert all(text in page for text in ("raw/b\\x1b[1m.txt", "<td>linked</td>", "<td>output of cvjobs</td>"))
    assert "\x1b" not in page
    again = said(embed(source, out, "--json"))
    assert (again["computed"], again["skipped_by"], again["left_out"]) == (0, SKIPPED, FIRST)
    assert json.loads((out / "summary.json").read_text()) == again
    checked = said(here("verify", out, "--source", source, "--json"))
    assert (checked["skipped_by"], checked["left_out"]) == (SKIPPED, FIRST)
    assert sorted(told(verify(out, source))) == sorted(LINES)
    assert told(here("verify", out)) == []


@pytest.mark.faults(minutes=2)
def test_a_query_tells_it(source: Path, tmp_path: Path) -> None:
    out, index, page = tmp_path / "out", tmp_path / "index", tmp_path / "page.html"
    embed(source, out)
    assert here("index", out, "-o", index).code == 0
    asked = here("query", index, source, "-k", 1, "--html", page)
    assert sorted(told(asked)) == sorted(LINES)
    assert "raw/b\\x1b[1m.txt" in page.read_text()
    some = said(here("query", index, source, "-k", 1, "--exclude", "[a-e].png", "--json"))
    assert (some["queries"], some["skipped_by"]["excluded"]) == (1, 5)
    refused = sentence(here("query", index, out, "--exclude", "a.png"), 2)
    assert refused == f"{out} holds vectors, of which none can be excluded: leave out --exclude."


def test_what_is_excluded_counts_as_deleted(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    embed(source, out)
    before = rows(out)
    refused = sentence(embed(source, out, "--exclude", "raw"), 2)
    assert refused == (
        f"2 of the 6 images that {out} knows are gone from the source or excluded (raw/c.png, raw/d.png): check that "
        "it is the whole source and what --exclude names, or pass --allow-deletions to drop their rows."
    )
    assert rows(out).equals(before)
    fewer = said(embed(source, out, "--exclude", "e.p*", "--json"))
    assert (fewer["ok"], fewer["computed"], fewer["left_out"]["excluded"]["first"]) == (5, 0, ["e.png"])
    dropped = said(embed(source, out, "--exclude", "raw/*", "--exclude", "e.png", "--allow-deletions", "--json"))
    assert (dropped["ok"], dropped["computed"], dropped["skipped_by"]["excluded"]) == (3, 0, 4)
    assert rows(out)["path"].to_pylist() == ["a.png", "b.png", "f.png"]
    checked = verify(out, source)
    assert checked.code == 4
    assert "3 images have no row for the present version: name with --exclude what it left out" in checked.out
    assert here("verify", out, "--source", source, "--exclude", "raw/*", "--exclude", "e.png").code == 0
    assert "name them with --source" in sentence(here("verify", out, "--exclude", "raw"), 2)


@pytest.mark.usefixtures("source")
def test_patterns_are_a_list_in_cvjobs_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cvjobs.yaml").write_text(
        "embed: {source: source, out: out, model: thumbnail/4, exclude: [raw, 'e.*']}\n"
    )
    assert said(here("embed", "--json"))["left_out"]["excluded"]["first"] == ["e.png", "raw"]


def test_an_output_of_before_goes_on_by_its_own_rules(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("@eaDir/a.png", "out/_cvjobs/x.png"):
        (source / name).unlink()
    embed(source, out)
    forge(out, lambda record: record.pop("listing_rules"))
    before = rows(out)
    for name in ("_DSC0002.png", "@eaDir/g.png", "out/h.png"):
        (source / name).write_bytes((source / "a.png").read_bytes())
    after = said(embed(source, out, "--json"))
    # By the first rules a system folder and an output are folders like others, and names with _ are hidden.
    assert (after["ok"], after["computed"], after["reused"]) == (8, 2, 6)
    assert set(rows(out)["path"].to_pylist()) == {*NAMES, "@eaDir/g.png", "out/h.png"}
    assert rows(out).filter([name in NAMES for name in rows(out)["path"].to_pylist()]).equals(before)
    assert verify(out, source).code == 0
    anew = said(embed(source, out, "--overwrite", "--allow-deletions", "--json"))
    assert set(rows(out)["path"].to_pylist()) == {*NAMES, "_DSC0002.png"}
    assert anew["left_out"]["output of cvjobs"]["first"] == ["out"]
