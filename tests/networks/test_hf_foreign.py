"""Repositories of transformers as others make them: what makes no sense in one is a sentence before a job begins."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import hf_detectors
import pytest
import universal
from reference import refused

from cvjobs.common.errors import WrongUse
from cvjobs.networks import registry
from cvjobs.networks.hf.repository import CONFIG, MODEL, PROCESSOR

pytest.importorskip("transformers")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("saved")
    hf_detectors.made("rt_detr", root / "detect")
    universal.folder("segformer", root)
    return {"detect": root / "detect", "segment": root / "segformer"}


def changed(folder: Path, name: str, **more: Any) -> Path:
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))
    return folder


def model(task: str, folder: Path) -> Any:
    return registry.detector(f"hf/{folder}") if task == "detect" else registry.segmenter(f"hf/{folder}")


@pytest.mark.parametrize("task", ["detect", "segment"])
@pytest.mark.parametrize(
    "more",
    [
        {"size": {"height": -1, "width": -1}},
        {"size": {"height": 1_000_000, "width": 1_000_000}},
        {"image_mean": [0, 0, 0, 0], "do_normalize": True},
        {"image_mean": "grey", "do_normalize": True},
        {"image_std": [0, 0, 0], "do_normalize": True},
        {"rescale_factor": 0, "do_rescale": True},
        {"resample": 99},
    ],
    ids=["negative", "huge", "four", "text", "zero", "factor", "filter"],
)
def test_images_that_cannot_be_prepared_are_one_sentence(
    saved: dict[str, Path], tmp_path: Path, task: str, more: dict[str, Any]
) -> None:
    folder = changed(Path(shutil.copytree(saved[task], tmp_path / "model")), PROCESSOR, **more)
    with pytest.raises(WrongUse, match=PROCESSOR) as raised:
        model(task, folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_weights_that_are_cut_off_are_said_to_be(saved: dict[str, Path], tmp_path: Path, task: str) -> None:
    folder = Path(shutil.copytree(saved[task], tmp_path / "model"))
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-10])
    with pytest.raises(WrongUse, match=f"{MODEL} is no safetensors, or only the beginning of one"):
        model(task, folder)


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_classes_of_one_name_carry_their_numbers(saved: dict[str, Path], tmp_path: Path, task: str) -> None:
    folder = Path(shutil.copytree(saved[task], tmp_path / "model"))
    changed(folder, CONFIG, id2label=dict(enumerate(["crane", "dog", "crane", "N/A", "N/A"])))
    names = [category.name for category in model(task, folder).categories]
    assert names[:3] == ["crane (0)", "dog", "crane (2)"]
    assert names[3:] == ([] if task == "detect" else ["N/A (3)", "N/A (4)"])


@pytest.mark.parametrize("name", ["a--b/c", "-a/b", "a/b.git", "a/" + "b" * 100])
def test_names_that_the_hub_has_not_are_one_sentence(name: str) -> None:
    assert refused(f"hf/{name}").startswith(f"There is no model hf/{name}: write hf/OWNER/NAME")
