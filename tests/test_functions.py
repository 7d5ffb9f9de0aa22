"""Every command is a Python function of the installed package, whatever part of it was imported before."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import cvjobs
from cvjobs.config import commands, fields

ROOT = Path(__file__).parent.parent
COMMANDS = sorted(commands.files())
# Imports every module that can be imported here, then says which command is what.
PROGRAM = """
import importlib, inspect, pkgutil, sys
import cvjobs
for module in pkgutil.walk_packages(cvjobs.__path__, "cvjobs."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
assert sys.argv[1] in cvjobs.__file__, cvjobs.__file__
for name in sys.argv[2:]:
    command = getattr(cvjobs, name, None)
    shown = str(inspect.signature(command)) if callable(command) else f"is no function but {command!r}"
    print(f"{name}{shown}")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel was unpacked into."""
    folder = tmp_path_factory.mktemp("installed")
    for name in ("cvjobs", "jobs", "cluster"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", folder, folder / "source"], check=True)
    (wheel,) = folder.glob("cvjobs-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


@pytest.fixture(scope="module")
def said(installed: Path) -> list[str]:
    """What each command is after all submodules of the installed package were imported."""
    words = [sys.executable, "-c", PROGRAM, str(installed), *COMMANDS]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.check_output(words, text=True, cwd=installed.parent, env=environment).splitlines()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_a_function_after_all_submodules_are_imported(name: str, said: list[str]) -> None:
    assert said[COMMANDS.index(name)] == f"{name}{fields.python_signature(commands.load(name).Config)}"


def test_help_of_the_package_lists_the_commands() -> None:
    assert set(COMMANDS) <= set(dir(cvjobs))


def test_no_module_has_the_name_of_a_command() -> None:
    modules = {path.stem for path in (ROOT / "cvjobs").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert sorted(modules & set(COMMANDS)) == []


def test_an_unused_function_costs_no_import() -> None:
    program = "import sys; from cvjobs.common import paths; print(sorted({'typer', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True, cwd=ROOT) == "[]\n"
    assert inspect.signature(cvjobs.embed).parameters["source"].default is inspect.Parameter.empty
