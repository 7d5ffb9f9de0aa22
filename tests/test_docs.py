"""The pages say what the code does: every error code, column, exit code and command is named where it is documented."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from test_layers import RANKS

from cvjobs import cli
from cvjobs.common.errors import CvjobsError
from cvjobs.common.failures import CODES
from cvjobs.config import commands, fields, help_text
from cvjobs.dataset import schema
from cvjobs.operations.nightly import pipeline_file

ROOT = Path(__file__).parent.parent
OUTPUTS = (ROOT / "docs" / "outputs.md").read_text()
README = (ROOT / "README.md").read_text()
PAGES = {file.relative_to(ROOT).as_posix(): file.read_text() for file in (ROOT / "docs").glob("*.md")}
PAGES |= {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}


def test_every_error_code_is_documented_with_its_remedy() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \| (.*) \|$", PAGES["docs/faults.md"], re.MULTILINE)
    assert rows == [(name, "yes" if code.retryable else "no", code.remedy) for name, code in CODES.items()]


def test_every_column_is_documented() -> None:
    for field in (*schema.KEYS, *schema.MEASURED, *schema.ERROR_SCHEMA):
        assert f"`{field.name}`" in OUTPUTS


@pytest.mark.parametrize("page", ["README.md", "docs/faults.md"])
def test_every_exit_code_is_documented(page: str) -> None:
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGES[page], re.MULTILINE)}
    assert rows == {0, 3, 4} | {kind.exit_code for kind in CvjobsError.__subclasses__()}


@pytest.mark.parametrize("page", ["docs/faults.md", "docs/security.md"])
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    named = re.findall(r"`(\w+): (\w+)`", PAGES[page])
    assert named
    for file, test in named:
        (found,) = (ROOT / "tests").rglob(f"test_{file}.py")
        assert f"def test_{test}(" in found.read_text(), (file, test)


FILE = re.compile(
    r"(?<![\w/.-])(?:cvjobs|jobs|tests|benchmarks|docs|demo|cluster)/(?:[\w/-]+\.(?:py|md|yaml|html|txt)\b|[\w/]+/(?=`))"
)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    named = [name for name in FILE.findall(PAGES[page]) if not re.search(r"/[A-Z]+\.", name)]  # jobs/NAME.py
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_test_that_shows_an_invariant_is_there() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    shown = re.findall(r"`(test_\w+)`", PAGES["docs/architecture.md"])
    assert len(shown) > 8
    assert [name for name in shown if f"def {name}(" not in tests] == []


def test_the_rooms_are_those_that_the_imports_are_checked_by() -> None:
    rows = re.findall(r"^\| (\d) \| `(\w+)/` \|", PAGES["docs/architecture.md"], re.MULTILINE)
    assert {room: int(rank) for rank, room in rows} == RANKS


def test_every_page_is_in_the_list_of_pages() -> None:
    listed = set(re.findall(r"\]\(([\w.-]+)\)", PAGES["docs/README.md"]))
    assert listed == {Path(name).name for name in PAGES if name.startswith("docs/")} - {"README.md"} | {"tour.py"}


def test_every_command_is_in_the_readme() -> None:
    for name in commands.files():
        assert f"cvjobs {name}" in README, f"README.md has no example of `cvjobs {name}`: add one"


FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fenced(page: str, language: str = "") -> list[str]:
    """The blocks of a page in a language, those of the shell by default."""
    return [text for name, text in FENCE.findall(page) if name == language]


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """The options of every command, as one types them."""
    found = {}
    for name in commands.files():
        command = typer.main.get_group(cli._single(name, commands.load(name))).commands[name]
        found[name] = {"--help"}.union(*(parameter.opts for parameter in command.params))
    before: list[Any] = typer.main.get_command(cli._overview()).params
    return found | {"": {option for parameter in before for option in parameter.opts}}


@pytest.mark.parametrize("name", ["check", "classify", "detect", "embed", "query", "segment", "train", "verify"])
def test_every_command_that_takes_a_list_can_confine_it(name: str, options: dict[str, set[str]]) -> None:
    assert "--confine" in options[name]
    assert f"`{name}`" in PAGES["docs/security.md"]


def test_the_command_reference_is_what_the_commands_say() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "command_reference.py"))["page"]()
    assert PAGES["docs/commands.md"] == made, "run: .venv/bin/python docs/command_reference.py"


def test_the_stub_is_what_the_commands_say() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "type_stub.py"))["stub"]()
    assert (ROOT / "cvjobs" / "__init__.pyi").read_text() == made, "run: .venv/bin/python docs/command_reference.py"


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_command_line_that_is_shown_is_one(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in re.findall(r"^\$ (?:\w+=\S+ )*cvjobs (.*)$", "\n".join(fenced(PAGES[page])), re.MULTILINE):
        words = shlex.split(re.split(r" (?:[|>]|&&) ", line)[0], comments=True)
        cli._parse(cli._single(words[0], commands.load(words[0])), words)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_option_that_is_named_in_a_sentence_is_one(page: str, options: dict[str, set[str]]) -> None:
    every = set().union(*options.values())
    for text in re.findall(r"`((?:cvjobs |-)[^`\n]+)`", FENCE.sub("", PAGES[page])):
        words = text.replace("[", "").replace("]", "").split()
        known = options.get(words[1], every) if words[0] == "cvjobs" else every
        assert words[0] != "cvjobs" or words[1] in options or not re.fullmatch("[a-z]+", words[1]), text
        assert {word for word in words if re.match("--?[a-z]", word)} <= known, text


def test_the_pipelines_that_are_shown_are_pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAY", "2026-11-22")
    shown = [text for page in PAGES.values() for text in fenced(page, "yaml")]
    pipelines = [text for text in shown if re.search("^steps:", text, re.MULTILINE)]
    assert pipelines
    for text in pipelines:
        (tmp_path / "nightly.yaml").write_text(text)
        pipeline_file.read(str(tmp_path / "nightly.yaml"))


# Where a number, a name or a plain verb says it.
VAGUE = re.compile(r"\b(so many|so much|whoever|whomever|nobody|somebody|someone|everybody|anybody|whatever)\b", re.I)


def helps() -> dict[str, str]:
    """What `--help` says, by command."""
    texts = {}
    for name in commands.files():
        command = typer.main.get_group(cli._single(name, commands.load(name))).commands[name]
        texts[name] = "\n".join(
            [command.help or "", *(str(getattr(parameter, "help", "")) for parameter in command.params)]
        )
    return texts


@pytest.mark.parametrize("page", sorted(PAGES))
def test_pages_say_who_and_how_many(page: str) -> None:
    assert VAGUE.findall(re.sub(r"`[^`]+`", "", PAGES[page])) == []


def test_help_says_who_and_how_many() -> None:
    assert {name: VAGUE.findall(text) for name, text in helps().items()} == {name: [] for name in commands.files()}


@pytest.mark.parametrize("name", sorted(commands.files()))
def test_every_option_has_a_group_a_sentence_and_a_default(name: str) -> None:
    for field in fields.fields(commands.load(name).Config).values():
        sentence = str(field.info.help)
        assert field.group in help_text.GROUPS, field.name
        assert field.group != fields.GENERAL or field.name in ("json", "tensorboard"), f"{field.name} names no group"
        assert re.fullmatch(r"[A-Z].+\.(  \[default: .+\])?", sentence), (
            f"{sentence!r} is no sentence, or its default no '  [default: all]'"
        )
        told = "[default: " in sentence or field.default not in (None, "", ())
        assert told or field.required, f"{field.name} does not say its default"


def test_every_link_leads_to_a_file() -> None:
    for page, text in PAGES.items():
        for place in re.findall(r"\]\(([^)#]+)[^)]*\)", FENCE.sub("", text)):
            assert "://" in place or (ROOT / page).parent.joinpath(place).is_file(), (page, place)
