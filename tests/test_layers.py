"""The import direction between layers, read from the source of every module of the library and every driver."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# The first word after ``cvjobs.``; a name covers its whole package, but for what is named
# itself. A module imports from its own layer and lower ones.
LAYERS = {
    0: {
        "config",
        "configfile",
        "drivers",
        "errors",
        "extras",
        "jobs",
        "options",
        "paths",
        "plugins",
        "recipes.options",  # a driver's options are made from a recipe's settings, which are plain values
        "recipes.settings",
        "records",
    },
    1: {
        "checkup",
        "classification",
        "compat",
        "context",
        "dataset",
        "decoding",
        "detection",
        "devices",
        "embedding",
        "evaluation",
        "exports",
        "heads",
        "heap",
        "images",
        "labels",
        "listing",
        "loader",
        "metrics",
        "models",
        "networks",
        "pages",
        "plain",
        "precision",
        "progress",
        "recipes",
        "remote",
        "report",
        "resolving",
        "results",
        "retrieval",
        "segmentation",
        "source",
        "stage",
        "stopping",
        "storage",
        "summary",
        "tokens",
        "trainees",
        "truths",
        "weights",
    },
    2: {
        "adding",
        "asking",
        "batch",
        "clusters",
        "crews",
        "forecast",
        "pipeline",
        "pool",
        "schedules",
        "submission",
        "training",
    },
    4: {"", "__main__", "cli", "helptext"},
}
DRIVER = 3
HEAVY = {0: {"ray", "torch"}, 1: {"ray"}}
# A finished output read as a Ray Dataset is for users who have Ray running anyway; nothing of ours calls it.
ASKED_FOR = {("dataset.snapshot_reader", "ray.data")}
NO_SIBLINGS = {"models", "exports"}


def modules() -> dict[str, Path]:
    """Every module by its dotted name without ``cvjobs``: "" is the package, ``jobs.embed`` a driver."""
    library = {path: path.relative_to(ROOT / "cvjobs").with_suffix("") for path in (ROOT / "cvjobs").rglob("*.py")}
    drivers = {path: path.relative_to(ROOT).with_suffix("") for path in (ROOT / "jobs").glob("*.py")}
    named = {path: ".".join(part for part in name.parts if part != "__init__") for path, name in library.items()}
    return {name: path for path, name in (named | {p: ".".join(n.parts) for p, n in drivers.items()}).items()}


def layer(name: str) -> int:
    if name.startswith("jobs."):
        return DRIVER
    for known in (name, name.partition(".")[0]):
        for number, names in LAYERS.items():
            if known in names:
                return number
    pytest.fail(f"cvjobs.{name} has no layer: add it to LAYERS in tests/test_layers.py (the layers are in the README).")


def file(name: str) -> str:
    """Return the file of its folder that a module is, or belongs to: ``models.torchvision`` of each module in that."""
    return ".".join(name.split(".")[:2])


def imports(tree: ast.Module, known: set[str]) -> Iterator[tuple[str, bool]]:
    """Yield (absolute module, whether the import runs when the module is imported), type-checking blocks left out."""

    def walk(node: ast.AST, top: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            yield from ((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = inner.removeprefix("cvjobs.") in known
                yield (inner if is_module else str(node.module)), top
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, top and not inside)

    yield from walk(tree, True)


def violations(name: str, source: str, known: set[str]) -> list[str]:
    """Return one sentence for every import that a module of this name must not have."""
    own = layer(name)
    found = []
    for target, top in imports(ast.parse(source), known):
        root, _, rest = target.partition(".")
        if root in HEAVY.get(own, ()) and (top or (name, target) not in ASKED_FOR):
            found.append(f"{name} is in layer {own} and imports {root}")
        if root == "cvjobs" and rest and layer(rest) > own:
            found.append(f"{name} is in layer {own} and imports {target} of layer {layer(rest)}")
        package = name.partition(".")[0]
        inside = root == "cvjobs" and rest.startswith(f"{package}.")
        if package in NO_SIBLINGS and "." in name and inside and file(rest) != file(name):
            found.append(f"{name} imports its sibling {target}")
        if own == DRIVER and rest.startswith("jobs."):
            found.append(f"{name} imports the driver {target}")
        light = root in sys.stdlib_module_names or root == "typer" or (root == "cvjobs" and rest and layer(rest) == 0)
        if own == DRIVER and top and not light:
            found.append(f"{name} imports {target} at its top level instead of inside run()")
    return found


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_follow_the_layers(name: str) -> None:
    everything = modules()
    assert violations(name, everything[name].read_text(), set(everything)) == []


def test_no_driver_is_named_like_a_standard_module() -> None:
    assert [path.stem for path in (ROOT / "jobs").glob("*.py") if path.stem in sys.stdlib_module_names] == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("records", "import torch"),
        ("records", "def f():\n    import ray.data"),
        ("records", "from cvjobs import stage"),
        ("stage", "def f():\n    from ray import remote"),
        ("stage", "from cvjobs.prediction.scheduler import run"),
        ("dataset.snapshot", "import ray.data"),
        ("pool", "import cvjobs.cli"),
        ("models.timm", "from cvjobs.networks.families.torchvision import pooled"),
        ("models.timm", "from cvjobs.networks.families import torchvision"),
        ("models.timm", "from cvjobs.networks.torchvision.classifiers import pooled"),
        ("jobs.embed", "import numpy"),
        ("jobs.embed", "from cvjobs.stage import Stage"),
        ("jobs.embed", "def run(config):\n    from cvjobs.drivers import index"),
    ],
)
def test_a_wrong_import_is_found(name: str, source: str) -> None:
    assert (
        len(violations(name, source, {"stage", "models.torchvision", "models.torchvision.classifiers", "jobs.index"}))
        == 1
    )


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("models.torchvision", "from cvjobs.networks.torchvision.classifiers import embedder"),
        ("models.torchvision.detectors", "from torchvision.models.detection.fcos import FCOS"),
        ("stage", "import torch\nfrom cvjobs.common.failures import Code\nfrom cvjobs import __version__"),
        (
            "stage",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from cvjobs.prediction.scheduler import run",
        ),
        ("models.timm", "from cvjobs.networks.families import Model\nfrom cvjobs.common.failures import Transform"),
        ("jobs.embed", "import typer\nfrom cvjobs import config\ndef run(config):\n    from cvjobs import pool"),
    ],
)
def test_a_right_import_is_not(name: str, source: str) -> None:
    assert violations(name, source, {"pool", "config"}) == []
