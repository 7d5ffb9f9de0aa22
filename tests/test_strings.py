"""Modules that are named in strings, which no import would miss: each is there, and so is what it is asked for."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

import cvjobs
from cvjobs.clusters import files as clusters
from cvjobs.common import paths
from cvjobs.operations.nightly import child

ROOT = Path(__file__).parent.parent
# Keys of metadata and names of files look like modules.
KEYS = {"fingerprint", "facts", "source", "versions", "index", "generation", "embeddings", "k", "min_score", "yaml"}
KEYS |= {"output", "pem", "categories", "min_score_from", "licence"}
KEYS |= {"families", "models"}  # groups of entry points
NAME = re.compile(r"\bcvjobs(?:\.[a-z_]\w*)+(?::\w+)?")


def strings() -> list[tuple[str, str]]:
    """Every dotted name in a string of the library, the drivers or the files of clusters, with its file."""
    found = []
    for path in [*(ROOT / "cvjobs").rglob("*.py"), *(ROOT / "jobs").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found += [(str(path.relative_to(ROOT)), name) for name in NAME.findall(node.value)]
    for path in (ROOT / "cluster").iterdir():
        found += [(path.name, name) for name in NAME.findall(path.read_text())]
    return [(path, name) for path, name in found if name.split(".")[1] not in KEYS]


def is_there(name: str) -> bool:
    """Whether a dotted name is a function of the package, a module, or something in one."""
    module, _, attribute = name.partition(":")
    parent, _, last = module.rpartition(".")
    if parent == "cvjobs" and last in {*dir(cvjobs), "pth"}:
        return True
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        module, attribute = parent, last
    return hasattr(importlib.import_module(module), attribute or "__name__")


@pytest.mark.slow
def test_what_a_string_names_is_there() -> None:
    found = strings()
    assert len(found) > 10
    assert [(path, name) for path, name in found if not is_there(name)] == []


IMPORT = re.compile(r"from (cvjobs[.\w]*) import ([\w, ]+)")


def programs() -> list[tuple[str, str, str]]:
    """What the programs that tests hand to another Python import of cvjobs, with the tests' files."""
    found = []
    for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        if path.name != "test_layers.py":  # its imports are wrong on purpose
            texts = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)]
            imports = [part for text in texts if isinstance(text, str) for part in IMPORT.findall(text)]
            found += [(path.name, module, names) for module, names in imports]
    return found


@pytest.mark.slow
def test_what_a_program_of_a_test_imports_is_there() -> None:
    found = programs()
    assert len(found) > 10
    for path, module, names in found:
        there = importlib.import_module(module)
        for name in (alias.split(" as ")[0].strip() for alias in names.split(",")):
            assert hasattr(there, name) or find_spec(f"{module}.{name}") is not None, f"{path}: {module}.{name}"


def test_a_night_finds_the_cvjobs_that_it_belongs_to() -> None:
    """Its commands run where nothing on Python's path says where cvjobs is: without ``.pth`` files, so without ours."""
    words = [sys.executable, "-S", "-P", child.__file__, str(os.getpid()), "--version"]
    libraries = str(Path(typer.__file__).parent.parent)
    environment = {"PYTHONPATH": libraries, "PATH": os.environ["PATH"]}
    ended = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert (ended.returncode, ended.stdout) == (0, f"cvjobs {cvjobs.__version__}\n"), ended.stderr


def test_the_folders_beside_the_library_are_found() -> None:
    assert (paths.shipped("jobs") / "embed.py").is_file()
    assert (paths.shipped("cluster") / "firewall.nft").is_file()


@pytest.mark.parametrize("kind", clusters.KINDS)
def test_every_kind_of_cluster_is_a_module(kind: str) -> None:
    module = importlib.import_module(f"cvjobs.clusters.{kind}")
    assert all(callable(getattr(module, name)) for name in ("up", "down", "status"))


def test_pages_find_their_templates() -> None:
    from cvjobs.html import render

    assert "base.html" in render._templates().list_templates()
