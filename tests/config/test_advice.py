"""Advice fits: where nothing can be written, the option or the key is named that a user gave the place with."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Ended, here, some

pytestmark = pytest.mark.slow


def refused(ended: Ended, option: str) -> None:
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert ended.err.endswith(f": choose another {option}, or fix its permissions.\n")
    assert ended.err.count("choose another") == 1


@pytest.fixture
def vectors(photos: Path, tmp_path: Path) -> Path:
    some(photos, tmp_path / "few", 3)
    assert here("embed", tmp_path / "few", "-o", tmp_path / "vectors", "--model", "thumbnail/4").code == 0
    return tmp_path / "vectors"


def test_a_read_only_disk(vectors: Path, read_only: Path, tmp_path: Path) -> None:
    few, index, place = tmp_path / "few", tmp_path / "index", read_only / "x"
    refused(here("embed", few, "-o", place, "--model", "thumbnail/4"), "-o")
    refused(here("export", vectors, "-o", place, "--format", "jsonl"), "-o")
    refused(here("index", vectors, "-o", place), "-o")
    assert here("index", vectors, "-o", index).code == 0
    refused(here("query", index, few, "--html", place), "--html")
    refused(here("query", index, "--duplicates", "--html", place), "--html")
    refused(here("query", index, few, "-o", place), "-o")
    assert "is a folder: name a file with --html." in here("query", index, few, "--html", few).err


def test_the_state_of_a_pipeline(read_only: Path, tmp_path: Path) -> None:
    file = tmp_path / "night.yaml"
    text = "state: {}\nsteps: [{{embed: {{source: few, out: vectors}}}}]\n"
    file.write_text(text.format(read_only / "state"))
    refused(here("run", file), "'state' in night.yaml")
    refused(here("schedule", file, "--cron", "@daily", "-o", read_only / "x"), "-o")
    file.write_text(text.format("night.yaml"))
    assert "is a file: name a folder with 'state' in night.yaml." in here("run", file).err
    for name in ("x" * 300, '"a\\0b"', "missing/" + "x" * 300):
        file.write_text(text.format(name))
        ended = here("run", file)
        assert (ended.code, ended.out) == (2, ""), ended.err
        assert ended.err.count("bug") == 0


def test_a_variable_of_a_pipeline_that_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAY", "")
    file = tmp_path / "night.yaml"
    for step in ("eval: {predictions: a, truth: b, out: '${DAY}'}", "embed: {source: '${DAY}', out: b}"):
        file.write_text(f"state: state\nvariables: [DAY]\nsteps: [{{{step}}}]\n")
        ended = here("run", file)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.endswith("is empty, as ${DAY} is: set it to the name of a file or a folder.\n")


def test_names_that_only_become_too_long(vectors: Path, tmp_path: Path) -> None:
    ended = here("export", vectors, "-o", tmp_path / ("x" * 250), "--format", "jsonl")
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert "too long" in ended.err
    deep = tmp_path / "/".join(["d" * 200] * 19)
    deep = deep / ("e" * (4090 - len(str(deep)) - 1))
    ended = here("embed", tmp_path / "few", "-o", deep, "--model", "thumbnail/4")
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert "are too long for its file system: choose a shorter" in ended.err
