"""The rooms of the library, read from the source: who may import whom, and that each name says one thing."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A module imports from rooms of a lower rank and from its own room.
RANKS = {
    "common": 0,
    "storage": 1,
    "config": 2,
    "sources": 3,
    "clusters": 3,
    "images": 4,
    "dataset": 5,
    "networks": 5,
    "html": 5,
    "evaluation": 6,
    "prediction": 6,
    "training": 7,
    "indexing": 7,
    "operations": 8,
    "inspection": 8,
}
# Modules beside the rooms: ``drivers`` says where the folder of drivers is, and a driver is ``drivers.NAME``.
BESIDE = {"drivers": 1, "completion": 10, "cli": 11, "__main__": 12, "": 12}
DRIVER = 9

# ``common`` is a closed list: what only one or two rooms need lives in one of them.
COMMON = {
    "categories",
    "class_labels",
    "control_groups",
    "devices",
    "errors",
    "extras",
    "failures",
    "fingerprint",
    "formatting",
    "gpu_meter",
    "gpu_peaks",
    "json_values",
    "malloc",
    "paths",
    "phases",
    "plugins",
    "progress",
    "rates",
    "rules",
    "signals",
    "tabular",
    "timing",
}

# A run with nothing to do, ``--help`` and the workers that only read must not wait for torch or Ray.
WITHOUT_TORCH = {"storage", "config", "sources", "clusters", "dataset"}
WITH_RAY = {
    "clusters",
    "prediction.workers.ray_actors",
    "indexing.builder.ray_tasks",
    "training.loop.one_machine",
    "training.loop.ray_train",
    "training.loop.process_group",
    "operations.doctor",
}
# A finished output read as a Ray Dataset is for users who have Ray running anyway.
ASKED_FOR = {("dataset.snapshot_reader", "ray.data")}

# The name of a plugin is what a user types, so the modules of a plugin folder never import each other.
PLUGINS = {
    "dataset.exports",
    "networks.families",
    "evaluation.ground_truth",
    "training.loop.tasks",
    "operations.schedules",
    "operations.doctor",
}
SHARED_BY_PLUGINS = {
    "evaluation.ground_truth.coco_records",
    "evaluation.ground_truth.types",
    "evaluation.ground_truth.open",
    "evaluation.ground_truth.folder_files",
    "evaluation.ground_truth.records",
    "evaluation.ground_truth.darknet",
    "evaluation.ground_truth.image_sizes",
    "evaluation.ground_truth.yolo_lines",
    "operations.doctor.examine",
    "operations.doctor.finding",
}
# Names that say the same thing in several rooms: what a user types, and the function that a room is there for.
ONE_MEANING = {
    "autoencoder",
    "classify",
    "coco",
    "detect",
    "embed",
    "loading",
    "masks",
    "report",
    "run",
    "segment",
    "tasks",
    "verify",
    "yolo",
}
ONE_MEANING |= {"hf", "onnx", "small", "torchvision"}
ONE_MEANING |= {"detectors", "loading", "segmenters"}  # of a family
LONGEST = 400
NAMES = 24


def named(path: Path) -> str:
    """Return a file's dotted name without ``cvjobs``: "" is the package, ``drivers.embed`` a driver."""
    if path.is_relative_to(ROOT / "jobs"):
        return f"drivers.{path.stem}"
    parts = path.relative_to(ROOT / "cvjobs").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@cache
def modules() -> dict[str, Path]:
    """Return every module by name."""
    return {named(path): path for folder in ("cvjobs", "jobs") for path in sorted((ROOT / folder).rglob("*.py"))}


def rank(name: str) -> int:
    """Return the rank of a module's room."""
    room = name.partition(".")[0]
    if room in RANKS:
        return RANKS[room]
    if name.startswith("drivers."):
        return DRIVER
    if name in BESIDE:
        return BESIDE[name]
    pytest.fail(f"cvjobs.{name} is in no room: add the room to RANKS in tests/test_layers.py.")


def imports(source: str, known: set[str]) -> Iterator[tuple[str, bool]]:
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
                yield (inner if inner.removeprefix("cvjobs.") in known else str(node.module)), top
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, top and not inside)

    yield from walk(ast.parse(source), True)


def listed(name: str, names: set[str]) -> bool:
    """Return whether a module, or a package that it is in, is in a set of names."""
    return any(name == other or name.startswith(f"{other}.") for other in names)


def violations(name: str, source: str, known: set[str]) -> list[str]:
    """Return one sentence for every import that a module of this name must not have."""
    own, room = rank(name), name.partition(".")[0]
    found = []
    for target, top in imports(source, known):
        root, _, rest = target.partition(".")
        if root == "ray" and not listed(name, WITH_RAY) and own < DRIVER and (top or (name, target) not in ASKED_FOR):
            found.append(f"{name} imports Ray: only {', '.join(sorted(WITH_RAY))} do")
        if root == "torch" and (room in WITHOUT_TORCH or (room == "common" and top)):
            found.append(f"{name} imports torch, and the room {room} does without")
        if root != "cvjobs":
            if own == DRIVER and top and root not in sys.stdlib_module_names and root != "typer":
                found.append(f"{name} imports {target} at its top level instead of inside a function")
            continue
        if rest and rest.partition(".")[0] != room and rank(rest) >= own:
            found.append(f"{name} (rank {own}) imports {target} (rank {rank(rest)})")
        folder = name.rpartition(".")[0]
        sibling = folder in PLUGINS and rest.startswith(f"{folder}.") and rest != name
        if sibling and not {name, rest} & SHARED_BY_PLUGINS:
            found.append(f"{name} imports its sibling {target}")
        if own == DRIVER and rest.startswith("drivers."):
            found.append(f"{name} imports the driver {target}")
        if own == DRIVER and top and rest and rank(rest) > RANKS["config"] and rest not in OPTIONS:
            found.append(f"{name} imports {target} at its top level instead of inside a function")
    return found


# Fields of options: plain values, and nothing heavy behind them.
OPTIONS = {"training.recipe.recipe", "training.recipe.recipe_options"}


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_come_from_rooms_below(name: str) -> None:
    assert violations(name, modules()[name].read_text(), set(modules())) == []


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of two or more modules that reach each other (Tarjan's strongly connected components)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        path.append(name)
        for other in graph.get(name, set()):
            if other not in order:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in path:
                lowest[name] = min(lowest[name], order[other])
        if lowest[name] == order[name]:
            group = path[path.index(name) :]
            del path[path.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in order:
            visit(name)
    return found


def test_no_files_import_each_other_in_a_circle() -> None:
    known = set(modules())
    graph = {
        name: {
            target.removeprefix("cvjobs.")
            for target, _ in imports(path.read_text(), known)
            if target.startswith("cvjobs.")
        }
        for name, path in modules().items()
    }
    assert circles(graph) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_the_rooms_are_all_there_is() -> None:
    found = {path.name for path in (ROOT / "cvjobs").iterdir() if path.name != "__pycache__"}
    assert found == {
        *RANKS,
        *("__init__.py", "__init__.pyi", "__main__.py", "cli.py", "completion.py", "drivers.py", "py.typed"),
    }
    assert len(found) <= NAMES


def test_common_is_no_drawer() -> None:
    assert {path.stem for path in (ROOT / "cvjobs/common").glob("*.py")} == {*COMMON, "__init__"}


def test_every_folder_is_a_package() -> None:
    """One without ``__init__.py``, as git leaves it that ignores its name, is in no wheel."""
    folders = {path.parent for path in (ROOT / "cvjobs").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_a_package_is_nothing_but_its_modules() -> None:
    for path in (ROOT / "cvjobs").rglob("*/__init__.py"):
        body = ast.parse(path.read_text()).body
        assert len(body) == 1, path
        assert isinstance(body[0], ast.Expr), path


def test_no_command_is_hidden_by_a_module_of_its_name() -> None:
    commands = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    assert commands & {name.partition(".")[0] for name in modules()} == set()
    assert [name for name in commands if name in sys.stdlib_module_names] == []


def test_a_module_is_one_idea() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_no_two_modules_of_different_meaning_share_a_name() -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for name in modules():
        if name and not name.startswith("drivers."):
            parts = name.split(".")
            for i, part in enumerate(parts):
                places[part].add(".".join(parts[: i + 1]))
    # A folder may hold the module that it is named after.
    several = {
        part: sorted(found)
        for part, found in places.items()
        if len({one.removesuffix(f".{part}.{part}") if one.endswith(f"{part}.{part}") else one for one in found}) > 1
        and not (len(found) == 2 and max(found) == f"{min(found)}.{part}")
    }
    assert {part: found for part, found in several.items() if part not in ONE_MEANING} == {}


def test_no_two_public_classes_share_a_name() -> None:
    places = defaultdict(list)
    for name, path in modules().items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name != "Config":
                places[node.name].append(name)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


KNOWN = {"prediction.engine.engine", "networks.families.torchvision", "dataset.exports.coco", "drivers.index"}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("common.paths", "import torch"),
        ("sources.listing", "def f():\n    import torch"),
        ("dataset.merge", "def f():\n    import ray.data"),
        ("dataset.snapshot_reader", "import ray.data"),
        ("common.paths", "from cvjobs.storage import store"),
        ("dataset.merge", "from cvjobs.networks.weights import load"),
        ("dataset.merge", "from cvjobs.prediction.engine import engine"),
        ("training.run", "def f():\n    from cvjobs.indexing.kinds import choose"),
        ("prediction.run", "import cvjobs.cli"),
        ("networks.families.timm", "from cvjobs.networks.families.torchvision import names"),
        ("networks.families.timm", "from cvjobs.networks.families import torchvision"),
        ("drivers.embed", "import numpy"),
        ("drivers.embed", "from cvjobs.prediction.run import run"),
        ("drivers.embed", "def run(config):\n    from cvjobs.drivers import index"),
    ],
)
def test_a_wrong_import_is_found(name: str, source: str) -> None:
    assert len(violations(name, source, KNOWN)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("common.devices", "def gpus():\n    import torch"),
        ("networks.families.torchvision", "from cvjobs.networks.torchvision.classifiers import embedder"),
        (
            "prediction.tasks.embed",
            "import torch\nfrom cvjobs.common.failures import Code\nfrom cvjobs import __version__",
        ),
        (
            "dataset.merge",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from cvjobs.prediction.run import run",
        ),
        ("dataset.merge", "from cvjobs.dataset.parts import Part\nfrom cvjobs.sources.rows import Listing"),
        ("prediction.workers.ray_actors", "def f():\n    import ray"),
        (
            "drivers.embed",
            "import typer\nfrom cvjobs.config import options\ndef run(c):\n    from cvjobs.prediction import run",
        ),
    ],
)
def test_a_right_import_is_not(name: str, source: str) -> None:
    assert violations(name, source, KNOWN) == []
