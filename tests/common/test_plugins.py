"""Plugins of a package: which there are, that only the chosen one is imported, and the sentence for another name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import cvjobs
import cvjobs.dataset.exports
import cvjobs.networks.families
from cvjobs.clusters import files
from cvjobs.common import plugins
from cvjobs.common.errors import WrongUse
from cvjobs.common.plugins import BrokenPlugin
from cvjobs.dataset import export
from cvjobs.dataset.export import formats
from cvjobs.networks import known_models, registry
from cvjobs.networks.registry import families
from cvjobs.operations import schedule_files


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of two plugins, a package as a third, and what is none."""
    for name, content in {
        "__init__.py": "",
        "_shared.py": "raise ImportError",
        "red.py": "COLOUR = 'red'",
        "green.py": "raise ImportError",
        "blue/__init__.py": "COLOUR = 'blue'",
        "notes.txt": "",
    }.items():
        file = tmp_path / "coloured" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    for name in [module for module in sys.modules if module.partition(".")[0] == "coloured"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    return "coloured"


def test_names_are_those_of_the_files(package: str) -> None:
    assert plugins.names(package) == ["blue", "green", "red"]
    assert "torchvision" in families()
    assert "csv" in formats()


def test_only_the_chosen_one_is_imported(package: str) -> None:
    assert plugins.load(package, "colour", "red").COLOUR == "red"
    assert plugins.load(package, "colour", "blue").COLOUR == "blue"
    assert "coloured.green" not in sys.modules
    assert "coloured._shared" not in sys.modules


@pytest.mark.parametrize(
    ("name", "choices", "sentence"),
    [
        ("rad", None, "There is no colour 'rad' (nearest: red): choose from blue, green, red."),
        ("_shared", None, "There is no colour '_shared' (nearest: red): choose from blue, green, red."),
        ("../red", ("red",), "There is no colour '../red' (nearest: red): choose from red."),
        ("green", ("red", "blue"), "There is no colour 'green' (nearest: red): choose from red, blue."),
    ],
)
def test_another_name_is_one_sentence(package: str, name: str, choices: tuple[str, ...] | None, sentence: str) -> None:
    with pytest.raises(WrongUse) as caught:
        plugins.load(package, "colour", name, choices)
    assert str(caught.value) == sentence
    assert "coloured.green" not in sys.modules


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("x = 1\ndef (", "broken.py, line 2 (invalid syntax): correct or remove the file."),
        ("x = 1\0", "broken.py (source code string cannot contain null bytes): correct or remove the file."),
        ("SHADE = 1", "broken.py (it has no COLOUR): correct or remove the file."),
        ("\nCOLOUR = 1 / 0", "broken.py, line 2 (ZeroDivisionError: division by zero): correct or remove the file."),
        (
            "import no_such_package.part",
            "broken.py, line 1, needs no_such_package (No module named 'no_such_package'): install that, or all of "
            "cvjobs with `pip install --force-reinstall cvjobs`.",
        ),
        (
            "import cvjobs.no_such_part",
            "broken.py, line 1 (ModuleNotFoundError: No module named 'cvjobs.no_such_part'): correct or remove the "
            "file.",
        ),
    ],
)
def test_a_broken_file_is_one_sentence_that_names_it(package: str, tmp_path: Path, content: str, why: str) -> None:
    folder = tmp_path / "coloured"
    (folder / "broken.py").write_text(content)
    with pytest.raises(BrokenPlugin) as caught:
        plugins.load(package, "colour", "broken", needs=["COLOUR"])
    assert str(caught.value) == f"The colour broken cannot be used: {folder}/{why}"
    assert plugins.load(package, "colour", "red", needs=["COLOUR"]).COLOUR == "red"


@pytest.mark.parametrize(
    "content", ["import no_such_package", "x = 1", "def names(task): return 1 / 0", "def names(task): return None"]
)
def test_a_family_that_is_broken_leaves_the_others(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"family{abs(hash(content))}"
    (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.setattr("cvjobs.networks.families.__path__", [str(tmp_path), *cvjobs.networks.families.__path__])
    monkeypatch.setattr(known_models, "families", lambda: [name, "small"])
    assert cvjobs.models(task="train") == {"small": ["cnn"]}
    assert f"cvjobs: The model family {name} cannot be used: {tmp_path}/{name}.py" in capsys.readouterr().err
    assert registry.find("cnn", "train")[1] == "cnn"
    with pytest.raises(WrongUse, match=rf"no model 'cnnn' \(nearest: cnn\), and {name} cannot be used: `cvjobs"):
        registry.find("cnnn", "train")
    with pytest.raises(BrokenPlugin, match=f"{name}.py"):
        registry.find(f"{name}/x", "train")


def test_a_format_that_is_broken_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aaa.py").write_text("x = 1")
    monkeypatch.setattr("cvjobs.dataset.exports.__path__", [str(tmp_path), *cvjobs.dataset.exports.__path__])
    with pytest.raises(BrokenPlugin, match=r"aaa\.py \(it has no TASKS and no UNIT and no write\): correct or remove"):
        export.find("aaa")
    assert export.fitting("detect") == ["coco", "csv", "jsonl", "yolo"]


@pytest.mark.parametrize(
    ("package", "chosen"), [("cvjobs.operations.schedules", schedule_files.KINDS), ("cvjobs.clusters", files.KINDS)]
)
def test_the_names_that_are_written_down_are_modules(package: str, chosen: tuple[str, ...]) -> None:
    assert set(chosen) <= set(plugins.names(package))
