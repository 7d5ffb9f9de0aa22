"""``cvjobs run``: nights that are continued, compared and never overlap."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import CLI, aged, end, exact, gone, kill, parts, run, some, started, until, words_of
from page_parser import ALLOWED, Page
from predictions import output

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.common.errors import OutputHeld, WrongUse
from cvjobs.dataset import snapshot
from cvjobs.operations.nightly import night_step, pipeline_file, record, scores
from cvjobs.operations.nightly.compared_numbers import _numbers
from cvjobs.operations.nightly.night_page import leave
from cvjobs.prediction.report import result_statistics
from cvjobs.storage.local_store import LocalStore

pytestmark = pytest.mark.slow

NIGHTLY = """
state: state
settings: {workers: 1}
steps:
  - name: vectors
    embed: {source: photos, out: vectors, model: thumbnail/4}
  - index: {embeddings: vectors, out: index}
"""


def page(file: Path) -> Page:
    """A page that loads and runs nothing, and whose links are names of files that are there."""
    found = Page(file.read_text())
    assert {tag for tag, _ in found.elements} <= ALLOWED | {"a"}
    for tag, attributes in found.elements:
        assert not any(name.startswith("on") or name == "src" for name in attributes)
        if tag == "a":
            assert (file.parent / str(attributes["href"])).is_file()
    return found


def text(file: Path) -> str:
    return " ".join(" ".join(page(file).text).split())


@dataclass
class Nights:
    """Three nights on one pipeline: what each command answered, and what the page of the newest night said."""

    folder: Path
    answers: list[dict[str, Any]]
    pages: list[str]


@pytest.fixture(scope="module")
def three(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """Images come, change and go between the nights; the third one fails in its second step, and is continued."""
    folder = tmp_path_factory.mktemp("nightly")
    source = some(photos, folder / "photos", 12)
    (folder / "nightly.yaml").write_text(NIGHTLY)
    found = Nights(folder, [], [])
    images = sorted(photos.rglob("*.jpg"))

    def night() -> None:
        aged(source)
        found.answers.append(cvjobs.run(str(folder / "nightly.yaml")).as_dict())
        found.pages.append(text(folder / "state" / "report.html"))

    night()
    sorted(source.rglob("*.jpg"))[0].unlink()
    shutil.copy(images[100], source)
    shutil.copy(images[101], source)
    night()
    (source / "<b>cut.jpg").write_bytes(images[0].read_bytes()[:300])
    shutil.copy(images[102], source)
    (folder / "index").rename(folder / "away")
    (folder / "index").write_text("a file where a folder should be")
    night()
    (folder / "index").unlink()
    (folder / "away").rename(folder / "index")
    night()
    return found


def test_each_night_does_what_is_new_and_the_third_is_continued(three: Nights) -> None:
    first, second, failed, continued = three.answers
    assert [answer["night"] for answer in three.answers] == [1, 2, 3, 3]
    assert [answer["status"] for answer in three.answers] == ["done", "done", "failed", "done"]
    assert [answer["exit_code"] for answer in three.answers] == [0, 0, 2, 0]
    computed = [answer["steps"][0]["summary"]["computed"] for answer in (first, second, failed)]
    assert computed == [12, 2, 2]
    assert [step["status"] for step in failed["steps"]] == ["done", "failed"]
    assert "is a file" in failed["steps"][1]["reason"]
    assert continued["steps"][0] == failed["steps"][0]  # it was not run again
    summary = continued["steps"][1]["summary"]
    assert (summary["count"], summary["added"], summary["removed"]) == (14, 1, 0)
    exact(three.folder / "vectors", three.folder / "photos", 15)


def test_the_page_shows_the_night_and_the_one_before(three: Nights) -> None:
    first, second, failed, continued = three.pages
    assert "night 1: 2 of 2 steps done" in first
    assert "night before" in second
    assert "ok 12 13 +1" in second
    assert "night 3: 1 of 2 steps done; index failed" in failed
    assert "The same command continues" in failed
    assert "The command was run 2 times" in continued
    assert "is a file" in continued  # why the first run ended is not forgotten
    assert "failures: truncated 0 1 +1" in continued
    assert "vectors 13 14 +1" in continued


def test_each_night_keeps_the_pages_of_its_steps(three: Nights) -> None:
    for number in (1, 2, 3):
        folder = three.folder / "state" / "nights" / f"{number:04d}"
        assert f"night {number}" in text(folder / "report.html")
        assert {file.name for file in folder.glob("*.html")} == {"01-vectors.html", "02-index.html", "report.html"}


def test_the_next_command_would_be_the_next_night(three: Nights) -> None:
    before = sorted(three.folder.rglob("*"))
    ended = run("run", "nightly.yaml", "--dry-run", cwd=three.folder)
    assert ended.code == 0, ended
    assert ended.out.splitlines() == [
        "night 4 of nightly: 2 of 2 steps to run",
        "  vectors: cvjobs embed photos --workers 1 --out vectors --model thumbnail/4",
        "  index: cvjobs index vectors --workers 1 --out index",
        "nothing was run, nothing was written",
    ]
    assert sorted(three.folder.rglob("*")) == before


def test_what_a_night_is(three: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = pipeline_file.read(str(three.folder / "nightly.yaml"))
    store = LocalStore(three.folder / "state")

    def again(
        status: record.Status = "failed", age: float = 0.0, steps: tuple[pipeline_file.NightStep, ...] = ()
    ) -> list[Any]:
        known = record.load(store)
        known[-1].status = known[-1].steps[1].status = status
        monkeypatch.setattr(time, "time", lambda: known[-1].ended + age)
        other = pipeline_file.Pipeline(**{**vars(pipeline), "steps": steps or pipeline.steps})
        night = record.tonight(store, other, known)
        return [night.number, *(work.status for work in night.steps)]

    vectors, index = pipeline.steps
    changed = pipeline_file.NightStep(**{**vars(vectors), "words": (*vectors.words, "--overwrite")})
    third = pipeline_file.NightStep(**{**vars(index), "name": "third"})
    assert again("done") == [4, "waiting", "waiting"]
    assert again("failed") == [3, "done", "failed"]
    assert again("killed", age=11 * 3600) == [3, "done", "killed"]
    assert again("killed", age=13 * 3600) == [4, "waiting", "waiting"]
    assert again("failed", steps=(changed, index)) == [4, "waiting", "waiting"]
    assert again("done", steps=(vectors, third, index))[0] == 4
    assert again("failed", steps=(vectors, third, index)) == [3, "done", "waiting", "failed"]
    known = record.load(store)
    known[-1].status = "failed"
    monkeypatch.setattr(time, "time", lambda: known[-1].ended)
    inserted = pipeline_file.Pipeline(**{**vars(pipeline), "steps": (vectors, third, index)})
    assert [work.status for work in record.tonight(store, inserted, known).steps] == ["done", "waiting", "waiting"]


def test_a_night_is_never_overlapped_and_a_killed_one_leaves_nothing_and_is_continued(
    three: Nights, slow_photos: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told.json"
    script = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.stdin.read()); sys.exit(7)"
    document = {
        "name": "held",
        "state": "state",
        "variables": ["VECTORS"],
        "notify-command": [sys.executable, "-c", script, str(told)],
        "steps": [
            {"name": "check", "verify": {"out": "${VECTORS}"}},
            {"embed": {"source": str(slow_photos), "out": "out", "model": "thumbnail/4"}},
        ],
    }
    file, out = tmp_path / "p.yaml", tmp_path / "out"
    file.write_text(json.dumps(document))
    vectors = str(three.folder / "vectors")
    with started([*CLI, "run", str(file)], VECTORS=vectors) as process:
        until(lambda: parts(out) or process.poll() is not None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VECTORS", vectors)
            with pytest.raises(OutputHeld, match=rf"state is held by process {process.pid} on .*: wait for it"):
                cvjobs.run(str(file))
        below = psutil.Process(process.pid).children(recursive=True)
        assert any("embed" in words_of(child) for child in below)
        process.kill()  # the night's own process alone
        process.wait()
        until(lambda: all(gone(child) for child in below), 10)
    assert not told.exists()
    assert "night 1: 1 of 2 steps done; embed is running" in text(tmp_path / "state" / "report.html")
    ended = run("run", file, "--json", VECTORS=vectors)
    assert ended.code == 0, ended
    outcome = json.loads(ended.out)
    assert (outcome["night"], [step["status"] for step in outcome["steps"]]) == (1, ["done", "done"])
    assert "check (1 of 2): done before" in ended.err
    assert outcome == json.loads(told.read_text())
    assert "notify-command" in ended.err
    assert "exit code 7" in ended.err
    assert "the command was killed, or its machine went down" in text(tmp_path / "state" / "report.html")
    exact(out, slow_photos, 200)


def test_a_step_that_is_killed_is_said_with_the_usual_reason(slow_photos: Path, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    script = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.stdin.read())"
    document = {
        "state": "state",
        "notify-command": [sys.executable, "-c", script, str(told)],
        "steps": [{"embed": {"source": str(slow_photos), "out": "out", "model": "thumbnail/4"}}],
    }
    file = tmp_path / "p.yaml"
    file.write_text(json.dumps(document))

    def step(night: int) -> list[psutil.Process]:
        below = psutil.Process(night).children()
        return [child for child in below if str(night) in words_of(child)]

    with started([*CLI, "run", str(file)]) as process:
        until(lambda: step(process.pid) or process.poll() is not None)
        end(step(process.pid)[:1])
        said, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    reason = "it was killed (signal 9); short of memory is the usual reason"
    assert reason in said
    assert reason in text(tmp_path / "state" / "report.html")
    assert json.loads(told.read_text())["reason"] == f"embed: {reason}"
    assert "for the memory" in night_step.killed(short=True)
    assert "use a smaller model" in night_step.killed(short=True)


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_night_leaves_its_output_at_rest(number: int, slow_photos: Path, tmp_path: Path) -> None:
    file, out, source = tmp_path / "p.yaml", tmp_path / "out", tmp_path / "source"
    for copy in range(6):  # enough that a fast machine, too, is at work when the stop arrives
        (source / str(copy)).mkdir(parents=True)
        for image in slow_photos.iterdir():
            (source / str(copy) / image.name).hardlink_to(image)
    step = {"embed": {"source": str(source), "out": "out", "model": "thumbnail/4"}}
    file.write_text(json.dumps({"state": "state", "steps": [step, {"verify": {"out": "out"}}]}))
    with started([*CLI, "run", str(file)]) as process:
        until(lambda: parts(out) or process.poll() is not None)
        kill(process, number)
        said, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "night 1 of p: stopped, 0 of 2 steps done" in said
    assert not (out / "_cvjobs/parts").exists() or not parts(out)
    ended = run("run", file)
    assert ended.code == 0, ended
    assert "night 1 of p: done, 2 of 2 steps done" in ended.out
    exact(out, source, 1200)


STEP = "steps: [{embed: {source: a, out: b}}]"


def test_only_the_newest_nights_are_kept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    step = record.StepRecord(name="a", command="embed", line="", digest="", status="done")
    for number in range(1, record.KEPT + 4):
        tried = record.Try(began=number, ended=number, status="done")
        record.keep(store, record.Night(pipeline="p", number=number, steps=[step], tries=[tried]))
    (tmp_path / "nights/0005/night.json").write_text("{")  # cut short
    (tmp_path / "nights/0006/.tmp-r000001-x").write_text("{")
    record.tidy(store)
    assert [night.number for night in record.load(store)] == [4, *range(6, record.KEPT + 4)]
    assert os.listdir(tmp_path / "nights/0006") == ["night.json"]


def test_a_folder_of_something_else_is_no_state_folder(three: Nights, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    for state, sentence in (
        ("vectors", "holds images' results: give the nights a 'state' folder of their own"),
        ("state", "the nights of 'nightly', not of"),
    ):
        file.write_text(f"state: {three.folder / state}\n{STEP}")
        with pytest.raises(WrongUse, match=sentence):
            cvjobs.run(str(file))


def test_scores_are_compared_with_the_night_before(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("state: s\nsteps: [{name: <b>, embed: {source: a, out: b}}]".replace("<b>", "seen"))
    pipeline = pipeline_file.read(str(file))
    store = LocalStore(pipeline.state)
    known: list[record.Night] = []
    for number, found in enumerate([[0.1, 0.6, 0.7], [0.6, 0.2, 0.9, 0.91]], start=1):
        rows = [
            {"path": f"{i}.jpg", "width": 8, "height": 8, "label": "<i>", "score": score, "top": []}
            for i, score in enumerate(found)
        ]
        out = LocalStore(output(tmp_path / f"out{number}", "classify", [Category(0, "<i>")], rows))
        base = snapshot.latest(out)
        result_statistics.gather(out, base.results, "classify", [Category(0, "<i>")], 10.0)
        held = scores.of(out)
        assert held is not None
        assert sum(held.counts) == len(found)
        step = record.tonight(store, pipeline, []).steps[0]
        step.status, step.scores, step.titles = "done", list(held.counts), list(held.titles)
        classes = {"class: <i>": 2.0, "class: old": 1.0} if number == 1 else {"class: <i>": 4.0}
        step.summary = {"ok": len(found), "found": {"images with a label": len(found)}, "classes": classes}
        tried = record.Try(began=number, ended=number + 1, status="done")
        night = record.Night(pipeline="p", number=number, status="done", steps=[step], tries=[tried])
        record.keep(store, night)
        leave(store, pipeline, night, known)
        known = record.load(store)
    shown = text(pipeline.state / "report.html")
    assert "Images by score, the night before" in shown
    assert "Images by score, this night" in shown
    assert "images with a label 3 4 +1" in shown
    assert "class: <i> 2 4 +2 class: old 1 0 -1" in shown


def test_an_output_without_scores_has_none(three: Nights) -> None:
    assert scores.of(LocalStore(three.folder / "vectors")) is None


def test_a_rate_that_cannot_be_said_and_the_phases_are_no_numbers_of_a_night() -> None:
    spent = {"importing": 0.5, "computing": 0.2}
    summary = {"ok": 22, "seconds": 0.7, "images_per_second": 0.0, "queries_per_second": 0.0, "phases": spent}
    work = record.StepRecord(name="embed", command="embed", line="embed", digest="", summary=summary)
    assert _numbers(work) == {"ok": 22.0, "seconds": 0.0}
