"""The page that a run leaves: it says what the run did, compares it, and never costs the run anything."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import CLI, aged, embed, exact, kill, parts, said, some, started, until
from page_parser import Page, harmless
from PIL import Image

import cvjobs
from cvjobs.dataset import schema
from cvjobs.prediction.report import contact_sheet, history
from cvjobs.prediction.report.history import Record
from cvjobs.prediction.report.speed import Speed
from cvjobs.prediction.summary import Summary
from cvjobs.storage.local_store import LocalStore

pytestmark = pytest.mark.slow

EVIL = "<script>alert(1)<\\script>.jpg"


def page(out: Path) -> Page:
    content = (out / schema.REPORT).read_bytes()
    assert len(content) < 1_500_000
    return harmless(content.decode())


def heading(page: Page) -> str:
    return next(text for text in page.text if "images" in text and ":" in text and not text.startswith("cvjobs"))


def pictures(page: Page) -> int:
    return sum(tag == "img" for tag, _ in page.elements)


def runs(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / schema.HISTORY).read_text())["runs"]
    return found


@pytest.fixture(scope="module")
def nightly(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Page], list[str]]:
    """Three runs on one output: the first one, one after changes of every kind, and one with nothing to do."""
    root = tmp_path_factory.mktemp("nightly")
    source, out = root / "photos", root / "out"
    some(photos, source, 60)
    evil = source / EVIL
    evil.write_bytes(b"x" * 100)
    (source / "line\nbreak.jpg").write_bytes(b"x" * 100)
    with open(os.fsencode(source) + b"/caf\xe9.jpg", "wb") as file:
        file.write(b"y" * 50)
    for number in range(20):
        (source / f"cut{number:02}.jpg").write_bytes(next(photos.rglob("*.jpg")).read_bytes()[:300])
    (source / "notes.txt").write_text("no image")
    aged(source)
    pages, printed = [], []
    for night in range(3):
        if night == 1:
            images = sorted(source.rglob("photo*.jpg"))
            images[0].write_bytes(images[0].read_bytes()[:300])
            os.utime(images[0], ns=(1_700_000_001_000_000_000,) * 2)
            images[1].unlink()
            Image.new("RGB", (64, 48), (9, 99, 199)).save(source / "fresh.png")
            os.utime(source / "fresh.png", ns=(1_700_000_000_000_000_000,) * 2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(contact_sheet, "BUDGET", 60.0)  # however busy the machine is
            printed.append(str(cvjobs.embed(str(source), str(out), model="thumbnail/4", max_error_rate=1.0)))
        pages.append(page(out))
    exact(out, source, 83)
    return out, pages, printed


def test_the_first_page_says_what_the_run_did(nightly: tuple[Path, list[Page], list[str]]) -> None:
    out, (first, _, _), printed = nightly
    assert heading(first) == "83 images: 60 ok, 23 failed, 0 missing; 83 new"
    assert "84 listed = 60 ok + 23 failed + 1 skipped" in first.text
    assert "finished" in first.text
    assert {"truncated", "not_an_image", ".txt"} <= set(first.text)
    assert "and 8 more in errors/" in first.text
    assert sum(text.startswith("cut") for text in first.text) == 12
    assert 20 <= pictures(first) <= 36
    assert "Since the run before" not in first.text
    assert f"cvjobs embed {out.parent}/photos -o {out} --max-error-rate 1.0 --model thumbnail/4" in first.text
    assert printed[0].splitlines()[-1] == f"{out}/report.html"


def test_the_phases_of_a_run_are_its_whole_time(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = cvjobs.embed(str(some(photos, tmp_path / "photos", 22)), str(out), model="thumbnail/4")
    assert done.phases.keys() <= {
        *("importing", "listing", "looking up the model", "comparing", "loading the model"),
        *("decoding", "computing", "writing", "page"),
    }
    assert round(sum(done.phases.values()), 2) == done.seconds
    assert json.loads((out / "summary.json").read_text()) == done.as_dict()
    assert "img/s" not in str(done), "22 small images are answered in no time"
    told = page(out).text
    assert "Where the time went" in told
    assert told[told.index("images a second") - 1] == "–"
    assert max(done.phases, key=lambda name: done.phases[name]) in told[told.index("Where the time went") :]


def test_a_slow_run_is_not_said_to_have_done_nothing() -> None:
    values: dict[str, Any] = dict.fromkeys(
        ("ok", "failed", "skipped", "remaining", "reused", "version", "exit_code"), 0
    )
    slow = Summary(**values, listed=3, computed=3, seconds=49.8, images_per_second=0.0803, out="out")
    assert "3 computed, 0 reused, 49.8 s, 12 s/img" in str(slow).splitlines()


def test_names_are_shown_harmlessly(nightly: tuple[Path, list[Page], list[str]]) -> None:
    first = nightly[1][0]
    assert {"<script>alert(1)<\\x5cscript>.jpg", "line\\x0abreak.jpg", "caf\\xe9.jpg"} <= set(first.text)


def test_the_next_page_tells_new_changed_and_gone_and_compares(nightly: tuple[Path, list[Page], list[str]]) -> None:
    out, (_, second, _), _ = nightly
    assert heading(second) == "83 images: 59 ok, 24 failed, 0 missing; 1 new, 1 changed, 1 gone"
    assert second.text.count("was ok before") == 1
    assert "1 had a result until it changed." in second.text
    assert pictures(second) == 1
    row = second.text.index("failed: truncated")
    assert second.text[row + 1 : row + 4] == ["20", "21", "+1"]
    assert [(r["computed"], r["new"], r["changed"], r["gone"]) for r in runs(out)] == [
        (83, 83, 0, 0),
        (2, 1, 1, 1),
        (0, 0, 0, 0),
    ]


def test_a_run_with_nothing_to_do_says_so(nightly: tuple[Path, list[Page], list[str]]) -> None:
    third = nightly[1][2]
    assert heading(third) == "83 images: 59 ok, 24 failed, 0 missing; nothing to do"
    assert pictures(third) == 1, "the sheet of the night before"
    assert any(text.startswith("1 image of the run that ended ") for text in third.text)
    at = third.text.index("The last runs")
    assert third.text[at + 1 : at + 5] == ["ended", "ok", "new", "time"]
    assert [text for text in third.text if text.endswith((" changed", " gone"))] == ["1 changed", "1 gone"]


def test_json_names_the_page_and_nothing_else_is_printed(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = embed(some(photos, tmp_path / "photos", 3), out, "--json")
    assert json.loads(ended.out)["report"] == f"{out}/report.html"
    assert json.loads((out / "summary.json").read_text())["report"] == f"{out}/report.html"
    assert said(ended.err) == []


def test_a_page_that_cannot_be_written_costs_the_run_one_line(photos: Path, tmp_path: Path) -> None:
    out, source = tmp_path / "out", some(photos, tmp_path / "photos", 3)
    assert embed(source, out).code == 0
    (out / schema.REPORT).unlink()
    (out / schema.REPORT / "in the way").mkdir(parents=True)
    ended = embed(source, out, "--overwrite")
    assert ended.code == 0
    (line,) = said(ended.err)
    assert line.startswith("cvjobs: this run has no report.html (")
    exact(out, source, 3)


@pytest.mark.faults(minutes=0.2)
def test_a_stopped_run_leaves_its_page(slow_photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [*CLI, "embed", str(slow_photos), "-o", str(out), "--model", "thumbnail/4"]
    with started(words) as process:
        until(lambda: parts(out))
        kill(process, signal.SIGINT)
        assert process.wait(60) == 130
    stopped = page(out)
    assert "stopped" in stopped.text
    assert any(text.startswith("Stopped: ") for text in stopped.text)
    (run,) = runs(out)
    assert run["status"] == "stopped"
    assert 0 < run["ok"] < 200
    assert any(text.startswith(f"{run['ok']} of 200 images have a result; 0 failed,") for text in stopped.text)


def test_a_refused_run_leaves_the_page_of_the_one_before(photos: Path, tmp_path: Path) -> None:
    out, source = tmp_path / "out", some(photos, tmp_path / "photos", 5)
    cvjobs.embed(str(source), str(out), model="thumbnail/4")
    before = (out / schema.REPORT).read_bytes()
    shutil.rmtree(next(path for path in source.iterdir()))
    for path in sorted(source.rglob("*.jpg"))[1:]:
        path.unlink()
    assert embed(source, out).code == 2
    assert (out / schema.REPORT).read_bytes() == before
    assert len(runs(out)) == 1


RECORD = Record(
    version=1,
    started=0.0,
    ended=1.0,
    status="finished",
    listed=1,
    ok=1,
    failed=0,
    skipped=0,
    computed=1,
    new=1,
    changed=0,
    gone=0,
    seconds=1.0,
    images_per_second=0.0,
)


def test_the_history_is_bounded_and_survives_what_it_does_not_understand(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert history.load(store) == []
    history.keep(store, [replace(RECORD, version=number) for number in range(200)])
    assert [run.version for run in history.load(store)] == list(range(140, 200))
    for content in ("{", "[]", '{"runs": 3}', '{"runs": [3]}', '{"runs": [{"version": 1}]}', "\xff"):
        (tmp_path / schema.HISTORY).write_text(content, encoding="latin-1")
        assert history.load(store) == []
    later = {"runs": [{**vars(RECORD), "something": "new"}]}
    (tmp_path / schema.HISTORY).write_text(json.dumps(later))
    assert history.load(store) == [RECORD]


def test_speed_keeps_few_points_however_long_a_run_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("cvjobs.prediction.report.speed.time.monotonic", lambda: clock[0])
    speed = Speed()
    for step in range(100_000):
        clock[0] = 100.0 + step / 10
        speed.sample(5 * step)
    rates = speed.rates()
    assert 16 <= len(rates) <= 33
    assert all(abs(rate - 50) < 1 for _, rate in rates)
    short = Speed()
    for answered in (8, 16, 700):
        clock[0] += 0.3
        short.sample(answered)
    assert short.rates() == [], "a rate needs a second"
    assert rates[0][0] < 400
    assert rates[-1][0] > 9600
