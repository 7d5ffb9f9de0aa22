"""A file of weights that was given with the wrong model: what it holds, and what to type."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision import models

from cvjobs.common.errors import WrongUse
from cvjobs.networks import lookalike, registry


@pytest.mark.slow
def test_a_classifier_with_its_classes(tmp_path: Path) -> None:
    file = tmp_path / "cells.pt"
    state = models.resnet18(num_classes=3).state_dict()
    torch.save({"model": state, "classes": ["red", "white", "platelet"]}, file)
    for make in (registry.embedder, registry.detector):
        with pytest.raises(WrongUse) as error:
            make("fasterrcnn_resnet50_fpn_v2" if make is registry.detector else "mobilenet_v2", weights=str(file))
        assert "it holds torchvision/resnet18, a classifier of 3 classes (red, white, platelet)" in str(error.value)
        assert "so give --model torchvision/resnet18 to `cvjobs classify` or `embed`." in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task", "classes"),
    [
        ("regnet_y_400mf", "classify", 5),
        ("mobilenet_v3_small", "classify", 2),
        ("ssdlite320_mobilenet_v3_large", "detect", 3),
        ("lraspp_mobilenet_v3_large", "segment", 4),
    ],
)
def test_architectures_whatever_their_classes(name: str, task: str, classes: int) -> None:
    background = int(task != "classify")
    options = {"weights_backbone": None} if background else {}
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        built = models.get_model(name, weights=None, num_classes=classes + background, **options)
    found = lookalike.recognised(built.state_dict())
    assert found == lookalike.Lookalike(model=f"torchvision/{name}", task=task, classes=classes)


def test_what_is_none_of_them() -> None:
    assert lookalike.recognised({"a.weight": torch.zeros(3, 4)}) is None
    assert lookalike.described({}, [], "torchvision/resnet18") == ""


def test_the_file_of_a_training(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "run" / "model.safetensors"
    file.parent.mkdir()
    metadata = {"cvjobs": '{"model": "small/cnn", "classes": 4}'}
    save_file({"a.weight": torch.zeros(3, 4)}, file, metadata)
    with pytest.raises(WrongUse, match=r"it is the model of a training \(small/cnn, 4 classes\), so give its folder"):
        registry.classifier("mobilenet_v2", weights=str(file))
