"""Pipeline files: what is refused before any step, what a variable is, and the command lines of steps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import cvjobs
from cvjobs import cli
from cvjobs.common.errors import WrongUse
from cvjobs.config import commands, fields
from cvjobs.config.argv import typed
from cvjobs.operations.nightly import pipeline_file

STEP = "steps: [{embed: {source: a, out: b}}]"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("state: s\nsteps: []", "has no steps"),
        ("[1]", "is no pipeline"),
        ("state: s\nsteps: [{embed: {source: a, out: b}}, {embd: {}}]", "'embd' is no command (nearest: embed)"),
        ("state: s\nsteps: [{run: {pipeline: p.yaml}}]", "'run' is no command"),
        ("state: s\nsteps: [{embed: {source: a, out: b, worker: 2}}]", "no option 'worker' in step 'embed' of"),
        ("state: s\nsteps: [{embed: {source: a, out: b, workers: 0}}]", "at least 1 and at most 100000, not 0"),
        ("state: s\nsteps: [{embed: {source: a, out: b, batch-size: 2, batch_size: 3}}]", "given twice"),
        ("state: s\nsteps: [{embed: {source: a}}]", "'out' is missing in step 'embed'"),
        ("state: s\nsteps: [{embed: {source: a, out: b, json: true}}]", "'json' in step 'embed'"),
        (
            "state: s\nsteps: [{embed: {source: a, out: {b: c}}}]",
            "'out' in step 'embed' of {} must be text, not a mapping.",
        ),
        (
            "state: s\nsteps: [{embed: {source: a, out: b, exclude: raw}}]",
            "'exclude' in step 'embed' of {} must be a list, not 'raw': write ['raw'].",
        ),
        (
            "state: s\nsteps: [{embed: {source: a, out: b, exclude: {raw: 1}}}]",
            "'exclude' in step 'embed' of {} must be a list, each entry text, not a mapping.",
        ),
        (
            "state: s\nsteps: [{embed: {source: a, out: b, exclude: [[raw]]}}]",
            "Every entry of 'exclude' in step 'embed' of {} must be text, not a list.",
        ),
        (f"state: [s]\n{STEP}", "'state' in {} must be text, not a list."),
        (
            f"state: s\nnotify-command: {{a: b}}\n{STEP}",
            "'notify-command' in {} must be text or a list of texts, not a m",
        ),
        (f"state: s\nsettings: precision\n{STEP}", "'settings' in {} must map options to values, as in 'settings: {{"),
        ('state: s\nsteps: [{embed: {source: a, out: "b\\0"}}]', "NUL"),
        ("state: s\nsteps: [{embed: {source: a, out: s}}]", "give that its own folder"),
        ("state: s\nsteps: [{embed: {source: a, out: b}}, {embed: {source: c, out: d}}]", "are named 'embed'"),
        ("state: s\nsteps: [{name: ../x, embed: {source: a, out: b}}]", "must be a word"),
        ("state: s\nsteps: [{name: x}]", "a name and one command"),
        (f"state: s\nsettings: {{precison: bf16}}\n{STEP}", "setting 'precison' (nearest: precision"),
        (f"state: s\nsettings: {{precision: bf61}}\n{STEP}", "one of auto, fp32, bf16, fp16, not 'bf61'"),
        (f"state: s\nnotify: x\n{STEP}", "no key 'notify' in a pipeline (nearest: notify_command)"),
        (f'state: s\nnotify-command: "a \'b"\n{STEP}', "cannot be split"),
        (f"state: s\nnotify-command: 5\n{STEP}", "must begin with a program, not '5'"),
        (f"state: s\nnotify-command: [-1.5, x]\n{STEP}", "must begin with a program, not '-1.5'"),
        (STEP, "'state' is missing"),
        (f"state: s3://bucket/s\n{STEP}", "must be a folder on this machine"),
        (f"state: s/${{HOME}}\n{STEP}", "${HOME}, which is not among its 'variables'"),
        (f"state: s\nvariables: [CVJOBS_UNSET]\n{STEP}", "CVJOBS_UNSET of"),
        (f"state: s\nvariables: DAY\n{STEP}", "must list names"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_runs(content: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(content)
    with pytest.raises(WrongUse) as raised:
        cvjobs.run(str(file))
    assert sentence.replace("{}", str(file)).replace("{{", "{") in str(raised.value)
    assert os.listdir(tmp_path) == ["p.yaml"]


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"Cannot read .*docs/nightly\.md"):
        cvjobs.run(str(tmp_path / "none.yaml"))


def test_a_variable_is_a_value_and_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "a b; touch x, out: c}\n- ${DAY} $(id)"
    monkeypatch.setenv("DAY", evil)
    (tmp_path / "p.yaml").write_text(
        "state: s\nvariables: [DAY]\nsteps:\n"
        "- embed: {source: '/data/${DAY}', out: b, storage-option: ['secret_key=${DAY}']}"
    )
    (step,) = pipeline_file.read(str(tmp_path / "p.yaml")).steps
    assert step.words == ("embed", f"/data/{evil}", "--out", "b", "--storage-option", f"secret_key={evil}")
    assert "secret_key=***" in step.line


@pytest.mark.parametrize("name", sorted(commands.files()))
def test_a_command_line_says_the_same_as_its_options(name: str) -> None:
    driver = commands.load(name)
    values = {}
    for field in fields.fields(driver.Config).values():
        choices = getattr(field.kind, "__args__", ())
        value: Any = choices[-1] if choices else {str: "--x, 'y'", int: 3, float: 0.5, bool: True}[field.kind]
        value = max(value, field.info.min) if field.info.min is not None else value
        values[field.name] = (value, value) if field.many else value
        assert field.kind is not bool or field.default is False  # there is no word for turning an option off
    expected = fields.build(driver.Config, **values)
    given, _ = cli._parse(cli._single(name, driver), typed(name, driver.Config, values))
    assert given == expected
