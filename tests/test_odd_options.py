"""Every option of every command with odd numbers, and command lines of odd values that make little sense together."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import odd_options
import pytest
from commands import Ended, exact, here, run, said
from fuzzing import Seeds
from odd_options import OptionWorld

from cvjobs.common.errors import WrongUse
from cvjobs.config import commands, fields
from cvjobs.config.fields import Field

pytestmark = pytest.mark.slow

COMMANDS = sorted(commands.files())


def refused(text: str, field: Field, sentence: str) -> None:
    """A sentence about a wrong number: one line, with the option and what it takes."""
    assert odd_options.long(field) in sentence
    assert sentence.count("\n") == 0, sentence
    assert len(sentence) < 400, sentence
    for bound in (field.info.min, field.info.max):
        assert bound is None or f"{bound}" in sentence, (text, sentence)
    assert "number" in sentence or "NUL" in sentence, sentence


def test_a_wrong_number_of_any_option_is_a_sentence_and_a_right_one_is_taken() -> None:
    options = odd_options.numeric()
    assert len(options) > 60
    for _, field in options:
        for text in odd_options.NUMBERS:
            try:
                value = fields.from_text(field, text, odd_options.long(field))
            except WrongUse as error:
                assert not odd_options.right(field, text), (field.name, text)
                refused(text, field, str(error).replace("\n", " "))
            else:
                assert odd_options.right(field, text), (field.name, text, value)
                assert field.worded or isinstance(value, field.kind)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_number_on_the_command_line_of_any_command(command: str) -> None:
    for number, field in enumerate(field for name, field in odd_options.numeric() if name == command):
        wrong = [text for text in odd_options.NUMBERS if not odd_options.right(field, text) and "\udc80" not in text]
        text = (wrong or ["0"])[number % max(len(wrong), 1)]
        option = odd_options.long(field)
        words = [f"{option}={text}"] if option.startswith("--") else [option, text]
        ended = here(*odd_options.least(command), *words)
        assert (ended.code, ended.out) == (2, ""), (words, ended)
        refused(text, field, ended.err.removesuffix("\n"))


@pytest.mark.faults(minutes=2)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_number_or_none_at_all_in_a_process(command: str, tmp_path: Path) -> None:
    found = [field for name, field in odd_options.numeric() if name == command]
    words = odd_options.least(command)
    if found:
        words.append(f"{odd_options.long(found[-1])}=nan")
    elif command in ("doctor", "models"):
        words.append("--json=nan")
    elif command in ("cluster", "jobs"):  # which would do what they are told
        words.append("--number=nan")
    ended = run(*words, cwd=tmp_path)
    assert ended.code in (1, 2), ended
    assert len(said(ended.err)) == 1, ended
    assert ended.err.startswith("cvjobs: "), ended
    assert ended.out == "", ended
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> OptionWorld:
    return OptionWorld(tmp_path_factory.mktemp("odd"))


def documented(ended: Ended, limited: bool) -> None:
    """A command ended as docs/faults.md says, whatever it was given; one that is ``limited`` may have stopped."""
    assert ended.code in (0, 1, 2, 3, 4, *([130] if limited else [])), ended
    assert "bug" not in ended.err, ended
    assert "Traceback" not in ended.err, ended
    assert ended.left == [], ended
    if ended.code == 2:
        assert ended.out == "", ended
        assert re.fullmatch(r"cvjobs: [^\n]*\.", said(ended.err)[-1]), ended
    elif ended.code == 1:
        assert said(ended.err) or ended.out, ended


def test_odd_options_that_make_little_sense_together(
    seeds: Seeds, world: OptionWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    names = odd_options.CHEAP if "few" in request.node.name else odd_options.ALL
    away = tmp_path / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    for seed in seeds(6):
        random = np.random.default_rng(seed)
        out = away / f"out{seed}"
        words = odd_options.line(world, random, out, names)
        print(words)
        ended = here(*words)
        documented(ended, limited=any(word.startswith(("--max-time", "--max-cost")) for word in words))
        if (
            words[0] == "embed"
            and ended.code == 0
            and "--dry-run" not in words
            and not any("--limit" in w for w in words)
        ):
            exact(out, world.photos, 8)
