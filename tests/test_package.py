"""The wheel, unpacked outside the checkout: every module is in it, and each command, as a program and as a function."""

from __future__ import annotations

import inspect
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import cvjobs
from cvjobs.clusters.jobs_api.code import package
from cvjobs.config import commands, python_function

pytestmark = pytest.mark.slow

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
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, built from a copy so that nothing of an earlier build gets into it."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("cvjobs", "jobs", "cluster"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", folder, folder / "source"], check=True)
    (wheel,) = folder.glob("cvjobs-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_every_file_of_the_catalogue_is_in_the_wheel(unpacked: Path) -> None:
    place = Path("cvjobs/networks/catalogue")
    ours = {file.name: file.read_bytes() for file in (ROOT / place).glob("*.csv")}
    assert {file.name: file.read_bytes() for file in (unpacked / place).glob("*.csv")} == ours
    assert "timm.csv" in ours


def test_every_module_is_in_the_wheel(unpacked: Path) -> None:
    library = {str(path.relative_to(ROOT)) for path in (ROOT / "cvjobs").rglob("*.py")}
    drivers = {f"cvjobs/drivers/{path.name}" for path in (ROOT / "jobs").glob("*.py")}
    built = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*.py")}
    assert built == library | drivers
    assert drivers
    for name in (
        "py.typed",
        "__init__.pyi",
        *(f"html/templates/{path.name}" for path in (ROOT / "cvjobs/html/templates").iterdir()),
    ):
        assert (unpacked / "cvjobs" / name).exists()
    for path in (ROOT / "cluster").glob("*.yaml"):
        assert (unpacked / "cvjobs" / "places" / path.name).read_bytes() == path.read_bytes()


def test_what_travels_to_a_cluster_is_what_is_in_the_wheel(unpacked: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(package())) as archive:
        sent = {name: archive.read(name) for name in archive.namelist()}
    built = {str(path.relative_to(unpacked)): path.read_bytes() for path in unpacked.rglob("*") if path.is_file()}
    assert sent == {name: content for name, content in built.items() if ".dist-info/" not in name}
    assert package() == package()


def test_the_command_runs_outside_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(unpacked)}

    def output(*words: str) -> str:
        return subprocess.check_output([sys.executable, *words], text=True, cwd=tmp_path, env=environment)

    assert output("-c", "import cvjobs.drivers; print(cvjobs.__file__, *cvjobs.drivers.__path__)").split() == [
        str(unpacked / "cvjobs" / "__init__.py"),
        str(unpacked / "cvjobs" / "drivers"),
    ]
    listed = output("-m", "cvjobs", "--help")
    for driver in (ROOT / "jobs").glob("*.py"):
        assert f"\n  {driver.stem} " in listed


@pytest.fixture(scope="module")
def said(unpacked: Path) -> list[str]:
    """What each command is after all submodules of the installed package were imported."""
    words = [sys.executable, "-c", PROGRAM, str(unpacked), *COMMANDS]
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    return subprocess.check_output(words, text=True, cwd=unpacked.parent, env=environment).splitlines()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_a_function_after_all_submodules_are_imported(name: str, said: list[str]) -> None:
    assert said[COMMANDS.index(name)] == f"{name}{python_function.signature(commands.load(name))}"


def test_help_of_the_package_lists_the_commands() -> None:
    assert set(COMMANDS) <= set(dir(cvjobs))


def test_an_unused_function_costs_no_import() -> None:
    program = "import sys; from cvjobs.common import paths; print(sorted({'typer', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True, cwd=ROOT) == "[]\n"
    assert inspect.signature(cvjobs.embed).parameters["source"].default is inspect.Parameter.empty
