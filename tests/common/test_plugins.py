"""Plugins of a package: which there are, that only the chosen one is imported, and the sentence for another name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cvjobs.clusters import files
from cvjobs.common import plugins
from cvjobs.common.errors import WrongUse
from cvjobs.dataset.export import formats
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
    ("package", "chosen"), [("cvjobs.operations.schedules", schedule_files.KINDS), ("cvjobs.clusters", files.KINDS)]
)
def test_the_names_that_are_written_down_are_modules(package: str, chosen: tuple[str, ...]) -> None:
    assert set(chosen) <= set(plugins.names(package))
