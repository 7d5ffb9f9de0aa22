"""The catalogue is what the installed libraries have, and `cvjobs models` answers from it without importing any."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import resource
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from commands import CLI, environment, here, sentence

import cvjobs
from cvjobs.networks import known_models, licences
from cvjobs.networks.catalogue import catalogue
from cvjobs.networks.known_models import TASKS

ROOT = Path(__file__).parents[2]
FILES = sorted(file.stem for file in catalogue.FOLDER.glob("*.csv"))
HEAVY = {"torch", "ray", "timm", "torchvision", "transformers", "onnxruntime", "numpy", "pyarrow", "rich"}
# For every entry it would take minutes: another head, a fixed size, no head, one that is another under each tag.
SAMPLE = (
    *("resnet18", "resnetv2_50x1_bit.goog_in21k", "vit_tiny_patch16_224", "convnextv2_atto.fcmae", "test_vit"),
    "qwen3_vit_306m_merge.qwen_drive_1_0_4b",
)


@pytest.fixture(scope="module")
def script() -> Any:
    """The script that makes the catalogue."""
    spec = importlib.util.spec_from_file_location("model_catalogue", ROOT / "docs/model_catalogue.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_licence_is_classified() -> None:
    """A tag that is new in a library is a line of the table of licences, or ``unknown`` said there."""
    found = {name for one in FILES for entry in catalogue.entries(one) for name in vars(entry.licence).values()}
    assert sorted(name for name in found if not licences.classified(name)) == []
    assert not licences.classified("brand-new-licence")
    assert {"CC-BY-NC-4.0", "dinov3-license", "apple-amlr", "gemma", "unknown"} <= found


def test_counts_of_what_timm_says() -> None:
    named = [entry.licence.weights for entry in catalogue.entries("timm")]
    assert named.count("CC-BY-NC-4.0") == 112
    assert named.count("dinov3-license") == 29
    assert named.count("unknown") == 50


@pytest.mark.slow
@pytest.mark.parametrize("family", ["hf", "small", "thumbnail", "timm", "torchvision", "training_run"])
def test_names_and_licences_are_those_of_the_family(family: str) -> None:
    """After another version of a library is pinned, `python docs/model_catalogue.py` makes the files anew."""
    assert catalogue.is_current(family)
    module = importlib.import_module(f"cvjobs.networks.families.{family}")
    for task in TASKS:
        assert [entry.model for entry in catalogue.entries(family) if task in entry.tasks] == module.names(task), task
    if hasattr(module, "licence"):
        for entry in catalogue.entries(family):
            assert entry.licence == module.licence(entry.model), entry.model


@pytest.mark.slow
@pytest.mark.parametrize(("family", "names"), [("timm", SAMPLE), ("torchvision", None)])
def test_rows_are_those_that_the_script_makes(script: Any, family: str, names: tuple[str, ...] | None) -> None:
    lines = (catalogue.FOLDER / f"{family}.csv").read_text().splitlines()
    rows = {row["model"]: row for row in csv.DictReader(lines[1:])}
    assert list(rows) == list(script.tasks(family))
    for name in names or rows:
        assert {key: str(value) for key, value in script.row(family, name).items()} == rows[name]


@pytest.mark.faults(minutes=0.2)
def test_of_another_version_the_library_itself_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cvjobs.networks.families import timm as timm_family

    head = ",".join(catalogue.COLUMNS)
    (tmp_path / "timm.csv").write_text(f"# timm 0.0.1\n{head}\ngone,embed,1,,MIT,MIT\nresnet18,embed,7,8x8,MIT,MIT\n")
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    for cached in (catalogue.entries, catalogue.is_current, catalogue._by_name):
        cached.cache_clear()
    try:
        found = {entry.model: entry for entry in known_models.entries("timm", "embed")}
        assert list(found) == timm_family.names("embed")
        assert found["resnet18"].parameters == 7
        assert found["convnextv2_atto"].licence.weights == "CC-BY-NC-4.0"
        assert known_models.licence("timm", "resnet18").weights == "Apache-2.0"
    finally:
        for cached in (catalogue.entries, catalogue.is_current, catalogue._by_name):
            cached.cache_clear()


@pytest.mark.slow
def test_the_list_takes_a_second_and_imports_nothing() -> None:
    program = "import sys; from cvjobs import cli; cli.main(['models']); print(*sys.modules, file=sys.stderr)"
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(ended.stderr.split())
    assert "timm/resnet50" in ended.stdout
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*CLI, "models"], env=environment(), capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) <= 1.0, took  # seconds of one core, which is what it takes on a machine that does nothing else


def test_rows_as_json_and_as_a_table() -> None:
    listed = json.loads(here("models", "--task", "classify", "--json").out)
    rows = {row["model"]: row for row in listed.pop("models")}
    assert [*rows] == [f"{family}/{name}" for family, names in listed.items() for name in names]
    assert rows["timm/convnextv2_atto"] == {
        "family": "timm",
        "model": "timm/convnextv2_atto",
        "tasks": ["embed", "classify", "train"],
        "parameters": 3708400,
        "size": "224x224",
        "licence_code": "Apache-2.0",
        "licence_weights": "CC-BY-NC-4.0",
        "use": "noncommercial",
    }
    uses = {row["use"] for row in rows.values()}
    assert uses == {"free", "noncommercial", "research", "own", "unknown"}
    table = cvjobs.models(task="classify").to_arrow()
    assert table.to_pylist() == list(rows.values())
    detectors = known_models.names("detect")
    assert cvjobs.models(task="detect").to_arrow(["family", "model"]).num_rows == sum(map(len, detectors.values()))


def test_the_list_as_text_has_the_name_first() -> None:
    lines = here("models").out.splitlines()
    assert lines[0] == "torchvision: 80 names"
    assert lines[1].split() == ["torchvision/alexnet", "61.1", "M", "224x224", "BSD-3-Clause"]
    (line,) = [line for line in lines if line.startswith("  timm/convnextv2_atto ")]
    assert line.endswith("  CC-BY-NC-4.0 (non-commercial)")
    assert "  thumbnail/N" in "\n".join(lines)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("timm/convnextv2_atto", ["forbids commercial use", "--accept-licence CC-BY-NC-4.0", "3,708,400"]),
        ("resnet18", ["torchvision/resnet18", "BSD-3-Clause", "embed, classify, train"]),
        ("deeplabv3_resnet50", ["torchvision/deeplabv3_resnet50", "segment"]),
        ("torchvision/vit_h_14", ["CC-BY-NC-4.0"]),
        ("timm/mobilenetv5_300m.gemma3n", ["prohibited use policy", "--accept-licence gemma"]),
        ("thumbnail/8", ["thumbnail/8", "no weights"]),
    ],
)
def test_one_model(name: str, shown: list[str]) -> None:
    ended = here("models", name)
    assert ended.code == 0, ended
    assert all(words in ended.out for words in shown), ended
    record = json.loads(here("models", name, "--json").out)
    assert record["model"].endswith(name)


def test_one_family_and_what_else_there_is() -> None:
    lines = here("models", "hf", "--task", "detect").out.splitlines()
    assert lines[0].startswith("hf: ")
    assert all(line.startswith("  hf/") for line in lines[1:-1])
    assert lines[-1] == "These are for detect; --task lists those for embed, classify, segment, train, autoencoder."
    assert max(map(len, lines[1:-1])) <= 80
    assert "has no models for detect" in sentence(here("models", "thumbnail", "--task", "detect"), 2)


def test_one_model_that_there_is_not() -> None:
    assert "nearest: resnet18" in sentence(here("models", "torchvision/resnet1"), 2)
    assert "There is no model 'resnet'" in sentence(here("models", "resnet"), 2)
    assert "no model family 'nosuch'" in sentence(here("models", "nosuch/model"), 2)
