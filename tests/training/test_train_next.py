"""What a person does next month: a training on other images, or of more classes, that begins with an earlier run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from training import CLASSES, SIDE, folder

import cvjobs
from cvjobs.common.errors import WrongUse
from cvjobs.networks import registry
from cvjobs.training.training_summary import TrainingSummary

pytestmark = pytest.mark.slow

CNN: dict[str, Any] = {"model": "small/cnn", "recipe": "quick", "img_size": str(SIDE), "batch_size": 16}
NEXT: dict[str, Any] = {"recipe": "quick", "epochs": 1, "batch_size": 16}


def more(root: Path) -> Path:
    """Return images of the three classes and of a fourth one, which is white."""
    folder(root, 12, seed=5)
    (root / "yellow").mkdir()
    for number in range(12):
        Image.fromarray(np.full((SIDE, SIDE, 3), 240 + number, np.uint8)).save(root / "yellow" / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> TrainingSummary:
    """A run of three classes that knows them."""
    root = tmp_path_factory.mktemp("first")
    summary: TrainingSummary = cvjobs.train(folder(root / "images", 20), root / "run1", **CNN, epochs=6)
    return summary


def test_a_run_of_three_classes_begins_one_of_four(
    first: TrainingSummary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = more(tmp_path / "next")
    summary = cvjobs.train(images, tmp_path / "run2", **NEXT, weights=first.out)
    assert (summary.model, summary.classes, summary.inherited, summary.weights) == ("small/cnn", 4, 3, "run1")
    said = f"train: 3 of 4 classes begin as {first.out} knows them: blue, green, red; anew: yellow\n"
    assert said in capsys.readouterr().err
    record = json.loads((tmp_path / "run2" / "config.json").read_text())["identity"]
    assert (record["img_size"], record["init_head_from_labels"]) == ([SIDE], True)
    assert cvjobs.train(images, tmp_path / "run2", **NEXT, weights=first.out).up_to_date
    assert cvjobs.classify(images, tmp_path / "labels", model=str(tmp_path / "run2")).failed == 0


def test_what_is_carried_over_is_the_features_and_the_rows(first: TrainingSummary) -> None:
    classes = ("red", "yellow", "blue")
    begun = registry.trainable("small/cnn", weights=first.out, classes=3, side=SIDE, labels=classes).module
    before = load_file(Path(first.out) / "model.safetensors")
    for name, tensor in begun.state_dict().items():
        if name.startswith("head"):
            rows = [CLASSES.index(label) for label in classes if label in CLASSES]
            assert torch.equal(tensor[[0, 2]], before[name][[rows[0], rows[1]]])
        else:
            assert torch.equal(tensor, before[name])


def test_classes_that_have_none_in_common_begin_anew(
    first: TrainingSummary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = folder(tmp_path / "images", 8)
    for name in CLASSES:
        (images / name).rename(images / f"no-{name}")
    assert cvjobs.train(images, tmp_path / "run2", **NEXT, weights=first.out).inherited is None
    assert f"train: none of 3 classes is one of {first.out}: all begin anew\n" in capsys.readouterr().err


def test_an_autoencoder_goes_on_with_its_own_length_of_vectors(tmp_path: Path) -> None:
    options: dict[str, Any] = {"task": "autoencoder", "img_size": "16", "batch_size": 16}
    cvjobs.train(folder(tmp_path / "a", 8), tmp_path / "run1", **options, dim=8, epochs=1)
    next_ = {**options, "epochs": 1, "weights": str(tmp_path / "run1")}
    del next_["img_size"]
    assert cvjobs.train(folder(tmp_path / "b", 8, seed=1), tmp_path / "run2", **next_).epochs == 1
    with pytest.raises(WrongUse, match=r"run1 was trained for --task autoencoder: give --task autoencoder"):
        cvjobs.train(tmp_path / "b", tmp_path / "run3", weights=str(tmp_path / "run1"))


def test_folders_that_have_no_model(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"The folder .* is no training run's: --weights takes a file, or the folder"):
        cvjobs.train(tmp_path, tmp_path / "run", weights=str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(WrongUse, match=r"has no model.safetensors yet: train until its first epoch is done"):
        cvjobs.train(tmp_path, tmp_path / "run", weights=str(tmp_path))
