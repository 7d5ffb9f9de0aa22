"""What a training leaves out: said, in its files and on its page, and refused where it is too much."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from commands import here, sentence
from training import CLASSES, SIDE, folder

import cvjobs
from cvjobs.common.errors import TooManyFailed, WrongUse
from cvjobs.sources.listing import list_source
from cvjobs.storage.local_store import LocalStore
from cvjobs.training import artifacts, identity
from cvjobs.training.data import labels, omissions

OPTIONS: dict[str, Any] = {"model": "small/cnn", "recipe": "quick", "epochs": 1, "img_size": str(SIDE), "batch_size": 8}
WORDS = ["--model", "small/cnn", "--recipe", "quick", "--epochs", "1", "--img-size", str(SIDE), "--batch-size", "8"]


def half_gone(place: Path) -> Path:
    """Return a list of 54 images, of which 30 do not exist, and one without a label."""
    folder(place, 8)
    there = [f"{name}/{number:03}.png,{name}" for name in CLASSES for number in range(8)]
    gone = [f"{name}/{number:03}.png,{name}" for name in CLASSES for number in range(50, 60)]
    (place / "list.csv").write_text("\n".join(["path,label", *there, *gone]))
    return place / "list.csv"


@pytest.mark.slow
def test_a_list_of_which_half_does_not_exist_is_refused(tmp_path: Path) -> None:
    source, run = half_gone(tmp_path / "data"), tmp_path / "run"
    said = sentence(here("train", source, "-o", run, *WORDS), 3)
    assert (
        f"30 of 54 images of {source} failed (30 list_vanished (blue/050.png, blue/051.png, blue/052.png, …))" in said
    )
    assert "--max-error-rate allows 5: correct the data, or raise --max-error-rate" in said
    assert not run.exists() or not list(run.iterdir())
    ended = here("train", source, "-o", run, *WORDS, "--max-error-rate", "0.6", "--json")
    assert ended.code == 0, ended
    summary = json.loads(ended.out)
    assert (sum(summary["images"].values()), summary["failed"]) == (24, 30)
    failed = summary["left_out"]["failed"]["list_vanished"]
    assert (failed["count"], failed["first"][0]) == (30, "blue/050.png")
    errors = pd.read_parquet(run / "errors.parquet")
    assert len(errors) == 30
    assert set(errors["code"]) == {"list_vanished"}
    assert "Failed 30  list_vanished: the entry or link target does not exist" in (run / "report.html").read_text()
    again = here("train", source, "-o", run, *WORDS, "--max-error-rate", "0.6")
    assert "  failed 30  list_vanished: " in again.out
    assert " (blue/050.png, blue/051.png, blue/052.png, …)" in again.out
    assert here("train", source, "-o", run, *WORDS).code == 0, "a run that has ended has nothing to refuse"


@pytest.mark.slow
def test_a_run_that_was_begun_before_goes_on(tmp_path: Path) -> None:
    source, run = half_gone(tmp_path / "data"), tmp_path / "run"
    cvjobs.train(source, tmp_path / "like", **OPTIONS, max_error_rate=1.0)
    record = identity.earlier(LocalStore(str(tmp_path / "like")))
    store = LocalStore(str(run), begun=True)
    run.mkdir()
    del record["rules"], record["cache_side"]
    record["data"] = labels.label(list_source(str(source), links=True, rules=1), 0.2, rules=1, splits=1).identity
    record["transform"].pop("pixel_rules", None)
    artifacts.record(store, identity.CONFIG, {"identity": record, "command": "train"})
    found = cvjobs.train(source, run, **OPTIONS)
    assert found.failed == 30
    assert "rules" not in identity.earlier(store)


@pytest.mark.slow
def test_images_that_cannot_be_decoded_count_and_the_folder_is_free_afterwards(tmp_path: Path) -> None:
    source, run = folder(tmp_path / "data", 8), tmp_path / "run"
    for number in range(4):
        (source / "red" / f"bad{number}.png").write_bytes(b"no image")
    said = sentence(here("train", source, "-o", run, *WORDS), 3)
    assert "4 of 28 images" in said
    assert "4 not_an_image (red/bad" in said
    assert len(pd.read_parquet(run / "errors.parquet")) == 4
    for number in range(3):
        (source / "red" / f"bad{number}.png").unlink()
    ended = here("train", source, "-o", run, *WORDS)
    assert ended.code == 0, ended
    assert "failed 1  not_an_image: the content is no image: remove or replace the file (red/bad3.png)" in ended.out


@pytest.mark.slow
def test_what_the_listing_left_out_is_said(tmp_path: Path) -> None:
    source, run = folder(tmp_path / "data", 8), tmp_path / "run"
    (source / "red" / "notes.txt").write_text("")
    (source / "loose.png").write_bytes(b"of no class")
    (source / "red").rename(tmp_path / "red")
    (source / "red").symlink_to(tmp_path / "red")
    (source / "Blue").mkdir()
    (source / "blue/000.png").rename(source / "Blue/000.png")
    ended = here("train", source, "-o", run, *WORDS)
    assert ended.code == 0, ended
    lines = (
        "skipped 1  .txt: red/notes.txt",
        "images without a label or split: 1 (loose.png)",
        "links to folders, which were followed: 1 (red)",
        "labels in another spelling of a class: 1 (Blue: blue)",
    )
    page = (run / "report.html").read_text()
    record = json.loads((run / "summary.json").read_text())
    for line in lines:
        assert line in ended.out
        assert line[1:] in page
    assert "notes.txt" in json.dumps(record)
    assert "3 classes" in ended.out


def test_which_share_may_fail(tmp_path: Path) -> None:
    labelled = labels.label(list_source(str(half_gone(tmp_path))), 0.5)
    failures = omissions.listed(labelled)
    omissions.check(labelled, failures, 30 / 54)
    omissions.check(labelled, [], 0.0)
    with pytest.raises(TooManyFailed, match="allows 29"):
        omissions.check(labelled, failures, 0.54)
    with pytest.raises(TooManyFailed, match="1 of 54 images"):
        omissions.check(labelled, failures[:1], 0.0)


def test_a_list_needs_no_other_columns(tmp_path: Path) -> None:
    """Those that results have, twice or of any type: an export or the rows of `classify` are a list to train on."""
    folder(tmp_path, 8)
    names = [f"{name}/{number:03}.png" for name in CLASSES for number in range(8)]
    table = {"path": names, "width": [8] * 24, "label": [name[:3] for name in names], "embedding": [None] * 24}
    pd.DataFrame({**table, "top": [[{"label": "a"}]] * 24}).to_parquet(tmp_path / "list.parquet")
    lines = ["path,width,height,label,score,label_2,score", *(f"{name},8,8,{name[:3]},0.5,x,0.1" for name in names)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    (tmp_path / "plain.csv").write_text("\n".join(["path,label", *(f"{name},{name[:3]}" for name in names)]))
    wanted = ("label", "labels", "split")
    found = {
        name: labels.label(list_source(str(tmp_path / name), columns=wanted), 0.2)
        for name in ("plain.csv", "list.csv", "list.parquet")
    }
    assert {own.classes for own in found.values()} == {("blu", "gre", "red")}
    assert found["list.csv"].identity == found["plain.csv"].identity
    with pytest.raises(WrongUse, match="twice: rename them"):
        list_source(str(tmp_path / "list.csv"), columns=wanted, rules=1)


def test_a_file_of_json_lines_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text('{"path": "a.png"}\n')
    with pytest.raises(WrongUse, match=r"labels\.jsonl is no list that is read here: write it as \.csv"):
        list_source(str(tmp_path / "labels.jsonl"))
    assert list_source(str(tmp_path / "labels.jsonl"), rules=1).images.num_rows == 1, "as outputs of before have it"
