"""A working folder that was deleted: names from / on work, others are refused, and nothing stays of the empty one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import here

from cvjobs.common.errors import WrongUse
from cvjobs.config import commands, fields, working_folder


@pytest.fixture
def gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    os.chdir(tmp_path)


def built(command: str, *arguments: str, **options: object) -> object:
    config: object = fields.build(commands.load(command).Config, *arguments, **options)
    return config


@pytest.mark.usefixtures("gone")
@pytest.mark.parametrize(
    ("config", "option"),
    [
        (built("embed", "photos", "/out"), "SOURCE"),
        (built("embed", "/photos", "out"), "-o/--out"),
        (built("embed", "/photos", "/out", weights="here/x.safetensors"), "--weights"),
        (built("classify", "/photos", "/out", labels="names.txt"), "--labels"),
        (built("query", "/index", "photos"), "SOURCE"),
        (built("query", "/index", "/photos", html="page.html"), "--html"),
        (built("verify", "/out", source="photos"), "--source"),
        (built("train", "/photos", "/out", cache="./cache"), "--cache"),
        (built("segment", "/photos", "/out", masks_dir="masks"), "--masks-dir"),
        (built("run", "night.yaml"), "PIPELINE"),
    ],
)
def test_a_name_in_a_folder_that_is_gone_is_refused(config: object, option: str) -> None:
    sentence = f"change into one that exists, or give {option} a name that begins with /."
    with (
        pytest.raises(WrongUse, match=f"^The working folder was deleted: {sentence}$"),
        working_folder.existing(config),
    ):
        pytest.fail("it began")


@pytest.mark.usefixtures("gone")
@pytest.mark.parametrize(
    "config",
    [
        built("embed", "/photos", "~/out", weights="random"),
        built("embed", "s3://photos/x", "gs://out/x"),
        built("query", "/index", duplicates=True),
        built("models"),
    ],
)
def test_what_needs_no_working_folder_gets_an_empty_one(config: object, tmp_path: Path) -> None:
    with working_folder.existing(config):
        assert Path.cwd().parent == tmp_path
        assert list(Path.cwd().iterdir()) == []
        assert working_folder.was_deleted()
    assert list(tmp_path.iterdir()) == []


def test_a_working_folder_that_exists_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with working_folder.existing(built("run", "night.yaml")):
        assert Path.cwd() == tmp_path
    assert not working_folder.was_deleted()


@pytest.mark.usefixtures("gone")
def test_a_command_line_there() -> None:
    ended = here("verify", "nothing")
    assert ended.code == 2
    assert ended.err.startswith("cvjobs: The working folder was deleted: change into one that exists, or give OUT")
