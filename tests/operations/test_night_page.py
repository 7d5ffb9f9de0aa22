"""What the page, the notification and the terminal say of a night: failures, steps that never ran, deletions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import aged, some
from page_parser import Page

import cvjobs
from cvjobs.operations.nightly import affected_images, compared_numbers, night_step, pipeline_file, record
from cvjobs.operations.nightly.night_page import leave
from cvjobs.operations.nightly.outcome import Outcome, did
from cvjobs.operations.nightly.record import Night, StepRecord, Try
from cvjobs.storage.local_store import LocalStore

PIPELINE = """
state: state
steps:
  - name: vectors
    embed: {source: photos, out: vectors, model: thumbnail/4}
  - name: labels
    classify: {source: photos, out: labels}
  - name: check
    verify: {out: vectors}
"""
NAMES = {"truncated": {"count": 4, "first": ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]}}
BAD = {"listed": 24, "ok": 20, "failed": 4, "computed": 24, "failures": {"truncated": 4}, "first_failed": NAMES}
GOOD = {
    "listed": 24,
    "ok": 24,
    "failed": 0,
    "computed": 24,
    "failures": {},
    "first_failed": {},
    "gone": 0,
    "changed": 0,
}
SEEN = {"found": {"images with a label": 20}, "classes": {"class: Egyptian cat": 2.0}}


@pytest.fixture
def pipeline(tmp_path: Path) -> pipeline_file.Pipeline:
    file = tmp_path / "p.yaml"
    file.write_text(PIPELINE)
    return pipeline_file.read(str(file))


def night(pipeline: pipeline_file.Pipeline, *told: dict[str, Any], number: int = 1, **more: Any) -> Night:
    """A night whose steps told what is given, in 2 s each; the last of them failed where more than one image did."""
    made = record.tonight(LocalStore(pipeline.state), pipeline, []).steps
    for step, summary in zip(made, told, strict=False):
        step.status, step.summary, step.began, step.ended, step.exit_code = "done", summary, 1.0, 3.0, 0
    status = "done" if len(told) == len(made) else "failed"
    if status == "failed":
        made[len(told) - 1].status, made[len(told) - 1].exit_code = "failed", 3
    tried = Try(began=number, ended=number + 1, status=status)  # type: ignore[arg-type]
    return Night(pipeline="p", number=number, status=status, steps=made, tries=[tried], **more)  # type: ignore[arg-type]


def shown(pipeline: pipeline_file.Pipeline, made: Night, *earlier: Night) -> str:
    leave(LocalStore(pipeline.state), pipeline, made, list(earlier))
    return " ".join(" ".join(Page((pipeline.state / "report.html").read_text()).text).split())


def test_a_night_that_failed_counts_what_it_did(pipeline: pipeline_file.Pipeline) -> None:
    failed = night(pipeline, BAD, number=2, failed=4)
    page = shown(pipeline, failed, night(pipeline, GOOD, GOOD, GOOD))
    assert "24 results computed 4 images failed 2.0 s of work" in page
    assert "failed, truncated 4 a.jpg, b.jpg, c.jpg, d.jpg in vectors: the file ends too early" in page
    assert "failed 0 of 3 24 4 1 2.0 s" in page  # among the last nights
    told = Outcome.of(pipeline, failed).as_dict()
    assert (told["computed"], told["failed"], told["seconds"]) == (24, 4, 2.0)
    assert told["images"] == [
        {"what": "failed", "code": "truncated", "count": 4, "first": ["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
         "steps": ["vectors"]},
    ]  # fmt: skip


def test_a_step_that_never_ran_is_compared_with_nothing(pipeline: pipeline_file.Pipeline) -> None:
    page = shown(pipeline, night(pipeline, BAD, number=2), night(pipeline, GOOD, {**GOOD, **SEEN}, GOOD))
    assert "Egyptian cat" not in page
    assert "labels waiting it has not run" in page


def test_a_step_whose_results_are_not_counted_is_no_drift(pipeline: pipeline_file.Pipeline) -> None:
    """A step that failed before its scores were noted says nothing of its classes."""
    before = night(pipeline, GOOD, {**GOOD, **SEEN}, GOOD).steps[1]
    rows = compared_numbers.rows(night(pipeline, GOOD, BAD).steps[1], before)
    assert not [row for row in rows if "Egyptian" in row.what or "label" in row.what]
    both = compared_numbers.rows(night(pipeline, GOOD, {**GOOD, "classes": {}}, GOOD).steps[1], before)
    assert [(row.then, row.now, row.difference) for row in both if "Egyptian" in row.what] == [("2", "0", "-2")]


def test_the_same_image_in_two_steps_is_named_once(pipeline: pipeline_file.Pipeline) -> None:
    made = night(pipeline, BAD, BAD, BAD, failed=4)
    found = affected_images.of(made)
    assert [(one.what, one.count, one.steps) for one in found] == [("failed", 4, ["vectors", "labels"])]
    assert "4 images failed" in shown(pipeline, made)


def test_a_record_of_an_earlier_version_says_that_it_counts_steps(pipeline: pipeline_file.Pipeline) -> None:
    old = {key: value for key, value in BAD.items() if key != "first_failed"}
    made = night(pipeline, old, old, old)
    fields = vars(made) | {"steps": [vars(step) for step in made.steps], "tries": [vars(made.tries[0])]}
    fields.pop("failed")
    for step in fields["steps"]:
        step.pop("source")
    loaded = Night.load(fields)
    assert affected_images.failed(loaded) == (8, False)
    page = shown(pipeline, night(pipeline, GOOD, GOOD, GOOD, number=2, failed=0), loaded)
    assert "done 3 of 3 48 ≤ 8 1" in page
    assert affected_images.failed(night(pipeline, old, GOOD, GOOD)) == (4, True)


def test_deletions_and_changes_are_named(pipeline: pipeline_file.Pipeline) -> None:
    went = {**GOOD, "gone": 7, "first_gone": ["g.jpg"], "changed": 1, "first_changed": ["c.jpg"]}
    page = shown(pipeline, night(pipeline, went, went, GOOD, failed=0))
    assert "changed 1 c.jpg in vectors, labels gone 7 g.jpg, … in vectors, labels" in page
    lines = str(Outcome.of(pipeline, night(pipeline, went, went, GOOD))).splitlines()
    assert "  1 image changed: c.jpg (in vectors, labels)" in lines
    assert "  7 images gone: g.jpg, … (in vectors, labels)" in lines


def test_what_every_try_of_a_step_did_is_the_nights(pipeline: pipeline_file.Pipeline) -> None:
    made = night(pipeline, {**GOOD, "computed": 7, "changed": 2, "first_changed": ["a.jpg", "b.jpg"]})
    made.steps[0].begin()
    assert (made.steps[0].summary, made.steps[0].tries) == ({}, 1)
    made.steps[0].summary, made.steps[0].status = (
        {**GOOD, "computed": 1, "changed": 1, "first_changed": ["c.jpg"]},
        "done",
    )
    assert affected_images.computed(made) == 8
    assert [(one.count, one.first) for one in affected_images.of(made)] == [(3, ["a.jpg", "b.jpg", "c.jpg"])]


def test_the_work_of_a_night_is_that_of_every_try(pipeline: pipeline_file.Pipeline) -> None:
    made = night(pipeline, {**GOOD, "computed": 7})
    before = made.seconds
    for began, ended in ((100.0, 130.0), (200.0, 204.0), (300.0, 301.0)):
        made.steps[0].begin()
        made.steps[0].began, made.steps[0].ended = began, ended
    assert made.seconds == pytest.approx(before + 30 + 4 + 1)
    assert made.steps[0].seconds == 1


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        ({"images": 6, "groups": 2, "members": 5, "exact": 0}, "2 groups of 5 images"),
        ({"images": 6, "groups": 0, "members": 0, "exact": 0}, "no near-duplicates"),
        ({"queries": 1, "neighbours": 9, "failed": 0}, "1 query"),
        ({"queries": 20, "neighbours": 9, "failed": 3}, "20 queries, 3 failed"),
    ],
)
def test_a_step_of_query_says_what_it_found(summary: dict[str, int], said: str) -> None:
    assert did(StepRecord(name="q", command="query", line="", digest="", summary=summary)) == said


def test_a_night_for_which_nothing_changed_says_so(pipeline: pipeline_file.Pipeline) -> None:
    quiet = {**GOOD, "computed": 0}
    assert "3 of 3 steps done; no image was new, changed or gone" in shown(
        pipeline, night(pipeline, quiet, quiet, quiet)
    )
    assert "no image was new" not in shown(pipeline, night(pipeline, quiet, GOOD, quiet))
    old = {key: value for key, value in quiet.items() if key != "gone"}
    assert "no image was new" not in shown(pipeline, night(pipeline, old, old, old))


def test_a_training_counts_its_classes_and_has_a_page(pipeline: pipeline_file.Pipeline) -> None:
    train = {"classes": 2, "metric_name": "top-1", "metric": 0.91, "epochs": 3, "memory": 64_035_692, "failed": 0}
    page = shown(pipeline, night(pipeline, GOOD, train, GOOD), night(pipeline, GOOD, {**train, "metric": 0.9}, GOOD))
    assert "metric 0.9000 0.9100 +0.0100" in page
    assert "memory 64 MB" in page
    assert did(StepRecord(name="t", command="train", line="", digest="", summary=train)) == "3 epochs, top-1 0.910"


@pytest.mark.parametrize(
    ("then", "now", "row"),
    [
        (1472, 20034, ("1,472", "20,034", "+18,562")),
        (0.9987, 1.0, ("0.9987", "1.0000", "+0.0013")),
        (12.345678, 9.1, ("12.35", "9.10", "-3.25")),
        (1234.5, 1000.25, ("1,234", "1,000", "-234")),
        (0.70734, 0.707341, ("0.7073", "0.7073", "–")),
        (3.0, 3.0, ("3", "3", "–")),
        (None, 2.5, ("–", "2.50", "–")),
    ],
)
def test_numbers_beside_each_other_have_the_same_decimals(then: float | None, now: float, row: tuple[str, ...]) -> None:
    def step(value: float | None) -> StepRecord:
        summary = {"x": value} if value is not None else {"y": 1}
        return StepRecord(name="s", command="c", line="", digest="", summary=summary)

    (found,) = [one for one in compared_numbers.rows(step(now), step(then)) if one.what == "x"]
    assert (found.then, found.now, found.difference) == row


def test_groups_of_duplicates_are_told_in_words() -> None:
    summary = {"groups": 0, "members": 0, "exact": 0, "surplus": 0}
    before = StepRecord(name="q", command="query", line="", digest="", summary=summary)
    after = StepRecord(
        name="q",
        command="query",
        line="",
        digest="",
        summary={"groups": 1, "members": 2, "exact": 1, "surplus": 74_183},
    )
    assert did(before) == "no near-duplicates"
    assert did(after) == "1 group of 2 images"
    built = StepRecord(name="i", command="index", line="", digest="", summary={"count": 5, "queries": 0})
    assert did(built) == "5 vectors"
    shown = {row.what: row.now for row in compared_numbers.rows(after, before)}
    assert shown["images in groups"] == "2"
    assert shown["exact copies"] == "1"
    assert shown["in all but the first"] == "74.2 kB"


def test_seconds_are_said_as_times() -> None:
    before = StepRecord(name="s", command="c", line="", digest="", began=0.0, ended=83.27, summary={"x": 1})
    after = StepRecord(name="s", command="c", line="", digest="", began=0.0, ended=250.1, summary={"x": 1})
    (found,) = [one for one in compared_numbers.rows(after, before) if one.what == "seconds"]
    assert (found.then, found.now, found.difference) == ("83 s", "4 min 10 s", "+2 min 47 s")


def test_too_many_failures_of_a_step_are_counted_by_reason_and_named(tmp_path: Path) -> None:
    log, answer = tmp_path / "log", tmp_path / "json"
    log.write_text("embed: 8/8 images, 3 failed\ncvjobs: this run has no report.html (No space).\n")
    told: dict[str, Any] = {"ok": 5, "failed": 3, "failures": {"not_an_image": 2, "truncated": 1}}
    answer.write_text(json.dumps(told))
    why = "3 of 8 images failed: 2 not_an_image, 1 truncated; --max-error-rate allows fewer"
    assert night_step._ended(3, log, answer, False).reason == why
    told["first_failed"] = {"not_an_image": {"count": 2, "first": ["a.jpg", "b.jpg"]}}
    answer.write_text(json.dumps(told))
    why = "3 of 8 images failed: 2 not_an_image (a.jpg, b.jpg), 1 truncated; --max-error-rate allows fewer"
    assert night_step._ended(3, log, answer, False).reason == why


def test_a_step_that_reached_its_limit_says_what_remains(tmp_path: Path) -> None:
    log, answer = tmp_path / "log", tmp_path / "json"
    log.write_text("embed: 8/20 images\n")
    answer.write_text(json.dumps({"spent": "--max-cost 5.00 USD", "remaining": 12, "cost": {"usd": 4.9}}))
    ended = night_step._ended(4, log, answer, False)
    assert (ended.code, ended.reason) == (4, "--max-cost 5.00 USD is reached, and 12 images remain")
    answer.write_text(json.dumps({"spent": "", "remaining": 0}))
    assert night_step._ended(4, log, answer, False).reason == "it ended with images missing"


@pytest.mark.faults(minutes=3)
def test_one_bad_image_in_two_steps_is_one_and_what_went_is_named(photos: Path, tmp_path: Path) -> None:
    source = some(photos, tmp_path / "photos", 12)
    told = tmp_path / "told.json"
    script = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.stdin.read())"
    steps = [
        {"name": "small", "embed": {"source": "photos", "out": "small", "model": "thumbnail/2"}},
        {"name": "large", "embed": {"source": "photos", "out": "large", "model": "thumbnail/4"}},
    ]
    notify = [sys.executable, "-c", script, str(told)]
    file = tmp_path / "p.yaml"
    file.write_text(
        json.dumps({"state": "state", "settings": {"workers": 1}, "notify-command": notify, "steps": steps})
    )
    first, second, third = sorted(source.rglob("*.jpg"))[:3]
    first.write_bytes(b"no image")
    aged(source)
    found = cvjobs.run(str(file))
    assert (found.failed, found.computed) == (1, 24)
    second.unlink()
    third.write_bytes(sorted(photos.rglob("*.jpg"))[100].read_bytes())
    found = cvjobs.run(str(file))
    names = {one["what"]: one["first"] for one in json.loads(told.read_text())["images"]}
    bad, gone, changed = (str(image.relative_to(source)) for image in (first, second, third))
    assert names == {"failed": [bad], "gone": [gone], "changed": [changed]}
    assert all(one["steps"] == ["small", "large"] for one in found.images)
