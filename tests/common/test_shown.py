"""Names in what commands print, log and export: a terminal obeys none of them."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from commands import embed, here, run, some
from hypothesis import given, settings
from hypothesis import strategies as st
from predictions import output

from cvjobs.common import progress
from cvjobs.common.categories import Category
from cvjobs.common.formatting import visible, visible_lines, without_controls
from cvjobs.common.paths import path_bytes, path_text

EVIL = "\x1b]0;owned\x07\x9b31m\r\x08a\nb\u202e"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@given(st.text(st.characters()))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert not CONTROLS.search(visible(text))
    assert "\n" not in visible(text)
    assert not CONTROLS.search(visible_lines(text))
    assert visible_lines(text).count("\n") == text.count("\n")
    assert not re.search("[\x00-\x1f\x7f-\x9f]", without_controls(text))
    assert without_controls(text, "\n").count("\n") == text.count("\n")


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_a_path_without_controls_is_the_same_path(raw: bytes) -> None:
    text = path_text(raw)
    if not re.search("[\x80-\x9f]", text):
        assert path_bytes(without_controls(text)) == raw


def test_the_lines_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress("embed") as shown:
        shown.note(EVIL)
        shown.phase(EVIL)
    progress.tell(EVIL)
    err = capsys.readouterr().err
    assert not CONTROLS.search(err)
    assert err.splitlines()[-1] == r"cvjobs: \x1b]0;owned\x07\x9b31m\x0d\x08a\x0ab\u202e"


@pytest.mark.faults(minutes=2)
def test_commands_print_names_that_are_harmless(photos: Path, tmp_path: Path) -> None:
    source = some(photos, tmp_path / EVIL, 4)
    image = next(source.rglob("*.jpg"))
    for name in (f"{EVIL}.jpg", f"x.{EVIL}"):
        shutil.copy(image, image.with_name(name))
    image.with_name(f"bad{EVIL}.jpg").write_bytes(b"no image")
    out = tmp_path / f"out{EVIL}"
    (tmp_path / f"{EVIL}.csv").write_text("path,label\n")
    night = tmp_path / "night.yaml"
    night.write_text(f"name: night\nstate: {tmp_path / 'state'}\nsteps: [{{verify: {{out: {tmp_path / 'none'}}}}}]\n")
    ended = [
        embed(source, out, "--max-error-rate", "1"),
        embed(source, tmp_path / "new", "--dry-run"),
        here("verify", out, "--source", source),
        here("verify", out, "--source", photos),
        here("embed", source / EVIL, "-o", out),
        here("eval", out, tmp_path / f"{EVIL}.csv"),
        here("index", out, "-o", tmp_path / f"index{EVIL}"),
        here("query", tmp_path / f"index{EVIL}", source, "--max-error-rate", "1"),
        here("unlock", out),
        here("run", night),
        here("export", out, "-o", tmp_path / f"{EVIL}.jsonl", "--format", "jsonl"),
        here(EVIL),
        here("embed", f"--{EVIL}"),
        run("train", source, "-o", tmp_path / f"run{EVIL}", "--model", "small/cnn"),
    ]
    os.remove(next(out.glob("data/*.parquet")))
    ended.append(here("verify", out))
    for one in ended:
        assert not CONTROLS.search(one.out.replace("\t", "")), one
        assert not CONTROLS.search(one.err), one
    assert [one.code for one in ended[:4]] == [0, 0, 0, 2]


def test_the_csv_of_an_output(tmp_path: Path) -> None:
    names = [f"{EVIL}.jpg", "plain.jpg"]
    rows = [
        {"path": name, "width": 8, "height": 6, "label": EVIL, "score": 0.5, "top": [{"label": EVIL, "score": 0.5}]}
        for name in names
    ]
    out = output(tmp_path / "out", "classify", [Category(1, EVIL)], rows)
    assert here("export", out, "--format", "csv", "-o", tmp_path / "out.csv").code == 0
    text = (tmp_path / "out.csv").read_bytes().decode()
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", text)
    assert text.count("\r\n") == text.count("\n") == 3
    assert r"\x1b]0;owned\x07\x9b31m\x0d\x08a\x0ab" in text
