"""The command line with a toy driver in a folder of its own: names, precedence, exit codes, sentences, imports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cvjobs
from cvjobs import drivers
from cvjobs.cli import main
from cvjobs.common.errors import WrongUse
from cvjobs.config import commands

pytestmark = pytest.mark.slow

ERRORS = (
    "CvjobsError",
    "JobFailed",
    "LimitReached",
    "LimitSpent",
    "OutputHeld",
    "Stopped",
    "StoreUnreachable",
    "TooManyFailed",
    "WrongUse",
)
TOY = '''"""Does what its source says.

It is written down here.
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import typer

from cvjobs.common import errors
from cvjobs.config.options import Json


@dataclass(frozen=True, kw_only=True)
class Config:
    source: Annotated[str, typer.Argument(help="What to do.")]
    out: Annotated[str, typer.Option("-o", "--out", help="Where to.")]
    workers: Annotated[int, typer.Option(min=1, help="Ray workers.")] = 1
    precision: Annotated[Literal["auto", "fp32"], typer.Option(help="Numbers.", rich_help_panel="Machine")] = "auto"
    classes: Annotated[tuple[int, ...], typer.Option(help="Only these.")] = ()
    overwrite: Annotated[bool, typer.Option(help="Start anew.")] = False
    address: Annotated[str | None, typer.Option(envvar="TOY_ADDRESS", help="Cluster.")] = None
    json: Json = False


class Done(dict):
    exit_code = 0

    def as_dict(self):
        return dict(self)

    def __str__(self):
        return str(sorted(self.items()))


def call(config):
    done = Done(asdict(config))
    if config.source.startswith("exit"):
        done.exit_code = int(config.source[4:])
        return done
    if config.source == "interrupt":
        raise KeyboardInterrupt
    if config.source == "crash":
        raise ZeroDivisionError("seven by zero")
    if config.source == "lacking":
        import no_such_package.part
    if config.source == "own":
        import cvjobs.no_such_part
    if config.source == "pipe":
        raise BrokenPipeError(32, "Broken pipe")
    if config.source in vars(errors):
        raise getattr(errors, config.source)("It went\\nwrong: do it \\x1b[1mbetter.")
    return done
'''

BARE = """from dataclasses import dataclass
from typing import Annotated
from typer import Option
@dataclass
class Config:
    x: {}
def call(config): ...
"""


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes ``toy`` and ``broken`` the only commands, and an empty folder the working directory."""
    folder = tmp_path / "drivers"
    folder.mkdir()
    (folder / "toy.py").write_text(TOY)
    (folder / "broken.py").write_text('"""Cannot be imported."""\nimport no_such_module\n')
    monkeypatch.setattr(drivers, "__path__", [str(folder)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield
    sys.modules.pop("cvjobs.drivers.toy", None)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def shown(command: Run, *words: str) -> dict[str, Any]:
    code, out, err = command("toy", "show", "-o", "o", *words)
    assert (code, err) == (0, "")
    return dict(eval(out))


def test_help_lists_the_drivers_without_importing_them(command: Run) -> None:
    for words in ([], ["--help"], ["-h"]):
        code, out, err = command(*words)
        assert (code, err) == (0, "")
        assert re.search(r"^  broken +Cannot be imported\.$", out, re.M)
        assert re.search(r"^  toy +Does what its source says\.$", out, re.M)
    assert "cvjobs.drivers.toy" not in sys.modules


def test_help_of_a_command_is_its_docstring_and_options(command: Run) -> None:
    code, out, _ = command("toy", "--help")
    assert code == 0
    assert "Usage: cvjobs toy" in out
    assert "It is written down here." in out
    assert re.search(r"^  SOURCE +What to do\.$", out, re.M)
    assert re.search(r"^  -o, --out .*Where to\.$", out, re.M)
    assert re.search(r"^  --workers <int> +Ray workers\.  \[default: 1\]$", out, re.M)
    assert re.search(r"^  --precision <auto\|fp32> +Numbers\.  \[default: auto\]$", out, re.M)
    assert re.search(r"^  --config FILE ", out, re.M)


def test_options_stand_in_groups_the_required_ones_first(command: Run) -> None:
    lines = command("toy", "--help")[1].splitlines()
    assert lines[0] == "Usage: cvjobs toy SOURCE -o OUT [OPTIONS]"
    groups = [line for line in lines if re.fullmatch(r"\w[^.]*:", line)]
    assert groups == ["Required:", "Machine:", "Cluster and storage:", "General:"]
    where = {word: lines.index(group) for group in groups for word in [group]}
    places = {line.split()[0]: number for number, line in enumerate(lines) if line.startswith("  -")}
    assert (
        where["Required:"] < places["-o,"] < where["Machine:"] < places["--precision"] < where["Cluster and storage:"]
    )
    assert where["General:"] < places["--workers"], "an option that names no group"
    assert where["General:"] < places["--json"] < places["-h,"]


def test_the_record_is_printed_as_text_or_as_one_json_object(command: Run) -> None:
    code, out, err = command("toy", "show", "-o", "o", "--json")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    assert json.loads(out)["source"] == "show"
    assert dict(eval(command("toy", "show", "-o", "o")[1])) == json.loads(out) | {"classes": (), "json": False}


def test_a_driver_may_print_by_itself(command: Run, tmp_path: Path) -> None:
    own = '''"""Prints."""\nfrom dataclasses import dataclass\n\n\n@dataclass(frozen=True, kw_only=True)\nclass Config:
    pass\n\n\ndef call(config):\n    return 7\n\n\ndef run(config):\n    print("seven")\n    return 3\n'''
    (tmp_path / "drivers" / "own_words.py").write_text(own)
    assert command("own_words") == (3, "seven\n", "")
    assert cvjobs.own_words() == 7  # type: ignore[attr-defined]


def test_version(command: Run) -> None:
    assert command("--version") == (0, f"cvjobs {cvjobs.__version__}\n", "")


def test_defaults_then_file_then_environment_then_flags(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(command)["workers"] == 1
    Path("cvjobs.yaml").write_text("toy: {workers: 2, overwrite: true, classes: [1], address: file}")
    found = shown(command)
    assert (found["workers"], found["overwrite"], found["classes"], found["address"]) == (2, True, (1,), "file")
    monkeypatch.setenv("TOY_ADDRESS", "environment")
    assert shown(command)["address"] == "environment"
    found = shown(command, "--workers", "1", "--no-overwrite", "--classes", "3", "--classes", "4", "--address", "flag")
    assert (found["workers"], found["overwrite"], found["classes"], found["address"]) == (1, False, (3, 4), "flag")
    Path("other.yaml").write_text("toy: {workers: 9}")
    assert shown(command, "--config", "other.yaml")["workers"] == 9


def test_required_values_may_come_from_the_file(command: Run) -> None:
    Path("cvjobs.yaml").write_text("toy: {source: show, out: there}")
    assert "('out', 'there')" in command("toy")[1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["toi"], "There is no command 'toi' (nearest: toy): see 'cvjobs --help'."),
        (["toy"], "SOURCE is missing: give it on the command line, or set 'source' under 'toy' in cvjobs.yaml."),
        (["toy", "show"], "-o/--out is missing: give it on the command line, or set 'out' under 'toy' in cvjobs.yaml."),
        (["toy", "a", "-o", "b", "--workers", "0"], "--workers must be a whole number at least 1, not 0."),
        (["toy", "a", "-o", "b", "--workers", "x"], "--workers must be a whole number at least 1, not 'x'."),
        (["toy", "a", "-o", "b", "--classes", "x"], "Every entry of --classes must be a whole number, not 'x'."),
        (["toy", "a", "-o"], "Option '-o' requires an argument: see 'cvjobs toy --help'."),
        (["--", "toy"], "The command comes first, as in 'cvjobs embed SOURCE -o OUT': see 'cvjobs --help'."),
    ],
)
def test_wrong_use_is_one_sentence_and_2(command: Run, words: list[str], sentence: str) -> None:
    assert command(*words) == (2, "", f"cvjobs: {sentence}\n")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["toy", "a", "-o", "b", "c"], ["toy takes SOURCE, so c is too many", "see 'cvjobs toy --help'."]),
        (["toy", "a", "-o", "b", "--workres", "2"], ["--workres", "--workers", "see 'cvjobs toy --help'."]),
        (["toy", "a", "-o", "b", "--precision", "fp23"], ["--precision", "'fp23'", "'auto', 'fp32'"]),
        (["--workers", "2"], ["--workers", "see 'cvjobs --help'."]),
    ],
)
def test_what_typer_refuses_is_one_sentence_and_2_too(command: Run, words: list[str], parts: list[str]) -> None:
    code, out, err = command(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("cvjobs: ")
    assert all(part in err for part in parts)


@pytest.mark.parametrize(
    ("source", "code"),
    [("WrongUse", 2), ("JobFailed", 1), ("OutputHeld", 5), ("Stopped", 130)],
)
def test_errors_of_the_library_are_one_sentence_and_their_code(command: Run, source: str, code: int) -> None:
    sentence = "cvjobs: It went\\x0awrong: do it \\x1b[1mbetter.\n"
    assert command("toy", source, "-o", "o") == (code, "", sentence)


def test_the_driver_chooses_the_exit_code(command: Run) -> None:
    assert command("toy", "exit3", "-o", "o")[::2] == (3, "")
    assert command("toy", "interrupt", "-o", "o") == (130, "", "cvjobs: Stopped.\n")


@pytest.mark.parametrize(("source", "what"), [("crash", "ZeroDivisionError: seven"), ("pipe", "BrokenPipeError: ")])
def test_a_bug_names_the_file_with_its_traceback(command: Run, source: str, what: str) -> None:
    code, out, err = command("toy", source, "-o", "o")
    found = re.fullmatch(r"cvjobs: (.*); this is a bug in cvjobs: please report it .* in (.*)\.\n", err)
    assert (code, out) == (1, "")
    assert found is not None
    assert found[1].startswith(what)
    assert "in call" in Path(found[2]).read_text()


def test_a_bug_shows_its_traceback_where_no_file_can_be_made(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/no/such/folder")
    code, _, err = command("toy", "crash", "-o", "o")
    assert code == 1
    assert err.startswith("Traceback")
    assert err.endswith("the traceback above.\n")


@pytest.mark.parametrize(
    ("content", "why", "in_help"),
    [
        ("def (", ", line 1 (invalid syntax): correct or remove the file.", True),
        ("x = 1\0", " (source code string cannot contain null bytes): correct or remove the file.", True),
        ("import no_such_module", ", line 1, needs no_such_module (No module named 'no_such_module'): install", False),
        ("x = 1", " (it has no Config): correct or remove the file.", False),
        ("class Config: x = 1", " (it has no call): correct or remove the file.", False),
        ("class Config: x = 1\ndef call(config): ...", " (its Config is no dataclass): correct", False),
        (BARE.format("int"), " (x in Config is not written as Annotated[TYPE, typer.Option(help=...)]): c", False),
        (BARE.format("Annotated[int, 3]"), " (x in Config is not written as Annotated[TYPE, typer.Op", False),
        (BARE.format("Annotated[dict, Option()]"), " (x in Config is of no type that an option can have: <cl", False),
        (BARE.format("Annotated[int | float, Option()]"), " (x in Config is of no type that an option can", False),
    ],
)
def test_a_driver_that_is_broken_is_its_own_sentence(
    command: Run, tmp_path: Path, content: str, why: str, in_help: bool
) -> None:
    file = tmp_path / "drivers/awry.py"
    file.write_text(content)
    sys.modules.pop("cvjobs.drivers.awry", None)
    code, out, err = command("--help")
    assert (code, err) == (0, "")
    assert "Does what its source says." in out
    assert ("".join(f"Cannot be used: {file}{why}".split()) in "".join(out.split())) is in_help
    code, out, err = command("awry", "x")
    assert (code, out) == (1, "")
    assert err.startswith(f"cvjobs: The command awry cannot be used: {file}{why}")
    assert err.count("\n") == 1
    assert shown(command)["source"] == "show"


def test_a_package_that_is_missing_is_no_bug(command: Run) -> None:
    assert command("toy", "lacking", "-o", "o") == (
        1,
        "",
        "cvjobs: The installation lacks no_such_package (No module named 'no_such_package'): reinstall with "
        "`pip install --force-reinstall cvjobs`.\n",
    )
    assert "this is a bug in cvjobs" in command("toy", "own", "-o", "o")[2]


def test_python_functions_take_the_same_options() -> None:
    toy: Callable[..., Any] = cvjobs.toy  # type: ignore[attr-defined]
    result = toy("photos", "vectors", workers=2)
    assert (result["source"], result["out"], result["workers"]) == ("photos", "vectors", 2)
    assert str(toy.__doc__).startswith(str(commands.load("toy").__doc__).strip())
    with pytest.raises(WrongUse, match="nearest: workers"):
        toy("photos", "vectors", workres=2)


def test_attributes_of_the_package() -> None:
    assert dir(cvjobs) == sorted(["__doc__", "__version__", "broken", "open", "toy", *ERRORS])
    with pytest.raises(AttributeError, match="no_such_command"):
        _ = cvjobs.no_such_command  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["embed", "-h"]])
def test_help_imports_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    heavy = {"ray", "torch", "pyarrow", "numpy", "rich"} | ({"pydantic"} if len(words) > 1 else set())
    program = (
        f"import sys\nfrom cvjobs.cli import main\ncode = main({words!r})\n"
        f"print(code, sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr == "0 []\n"
    assert "Usage: cvjobs" in done.stdout


def showing(tmp_path: Path, name: str = "o", first: str = "") -> str:
    """A program that runs the toy driver ``show``, after ``first``."""
    return (
        "import sys, cvjobs.drivers\nfrom cvjobs.cli import main\n"
        f"cvjobs.drivers.__path__[:] = [{str(tmp_path / 'drivers')!r}]\n{first}\n"
        f"sys.exit(main(['toy', 'show', '-o', {name!r}]))"
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_disk_that_is_full_is_no_bug(tmp_path: Path, unbuffered: str) -> None:
    words, variables = [sys.executable, "-c", showing(tmp_path)], {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, env=variables, check=False)
    assert done.stderr == "cvjobs: No space left: make room, then run the same command again.\n"
    assert done.returncode == 1


def test_a_reader_that_leaves_early_is_no_bug(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", showing(tmp_path, first="sys.stdin.read()")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.parametrize("encoding", ["ascii:strict", "latin-1"])
def test_a_letter_that_standard_output_lacks_is_no_bug(tmp_path: Path, encoding: str) -> None:
    variables = {**os.environ, "PYTHONIOENCODING": encoding}
    words = [sys.executable, "-c", showing(tmp_path, "\u2603")]
    done = subprocess.run(words, capture_output=True, text=True, env=variables, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "'\\u2603'" in done.stdout
