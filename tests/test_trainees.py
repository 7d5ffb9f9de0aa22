"""Models that are trained: a new head on old weights, in any family, and the same module again from the run's file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cvjobs import models
from cvjobs.errors import WrongUse
from cvjobs.records import facts
from cvjobs.trainees import Trainee

CLASSES = ("ape", "bee", "cow")


def leave(trainee: Trainee, run: Path) -> Path:
    """Write what a training run would."""
    run.mkdir()
    about = {"model": trainee.name, "classes": len(CLASSES), "transform": facts(trainee.transform)}
    tensors = {name: tensor.clone() for name, tensor in trainee.module.state_dict().items()}
    save_file(tensors, run / "model.safetensors", {"labels": json.dumps(CLASSES), "cvjobs": json.dumps(about)})
    return run


@pytest.mark.parametrize(
    ("name", "side", "dim"),
    [
        ("torchvision/squeezenet1_1", 64, 512),
        pytest.param("torchvision/mobilenet_v3_small", 32, 1024, marks=pytest.mark.faults),
        pytest.param("torchvision/googlenet", 64, 1024, marks=pytest.mark.faults),
        ("timm/test_vit", 64, 64),
        ("timm/test_resnet", None, 96),
        ("small/cnn", 12, 128),
    ],
)
def test_a_run_gives_the_trained_module_back(tmp_path: Path, name: str, side: int | None, dim: int) -> None:
    trainee = models.trainee(name, weights="random", classes=3, side=side, seed=5)
    module = trainee.module.eval()
    run = leave(trainee, tmp_path / "run")
    height, width = trainee.transform.size or (0, 0)
    assert side in (None, height)
    pixels = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (trainee.transform.mean, trainee.transform.std))
    with torch.inference_mode():
        logits = module((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std).numpy()
    found = models.classifier(str(run))
    assert found.labels == CLASSES
    assert found.load("cpu", "fp32")(pixels) == pytest.approx(logits, abs=1e-4)
    embedder = models.embedder(str(run))
    assert embedder.dim == dim
    assert embedder.load("cpu", "fp32")(pixels).shape == (2, dim)


def test_the_head_depends_on_the_seed_and_the_rest_begins_with_the_weights(tmp_path: Path) -> None:
    source = models.trainee("timm/test_resnet", weights="random", classes=7, seed=1)
    save_file(source.module.state_dict(), tmp_path / "own.safetensors")
    one, two = (
        models.trainee(
            "timm/test_resnet", weights=str(tmp_path / "own.safetensors"), classes=7, seed=seed
        ).module.state_dict()
        for seed in (1, 2)
    )
    assert torch.equal(one["conv1.0.weight"], source.module.state_dict()["conv1.0.weight"])
    assert torch.equal(one["conv1.0.weight"], two["conv1.0.weight"])
    assert not torch.equal(one["fc.weight"], two["fc.weight"])
    assert not torch.equal(two["fc.weight"], source.module.state_dict()["fc.weight"])  # as many classes, not the same


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("small/rnn", {}, "There is no model small/rnn"),
        ("small/cnn", {"weights": "own.pth"}, "leave out --weights"),
        ("small/cnn", {"side": 2}, "at least 4"),
        ("torchvision/maxvit_t", {"side": 64, "weights": "random"}, "leave out --img-size"),
        ("thumbnail/8", {}, "no models for that"),
        ("mobilenet_v22", {}, "mobilenet_v2"),
    ],
)
def test_what_cannot_be_trained(name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(WrongUse, match=said):
        models.trainee(name, classes=3, **options)  # type: ignore[arg-type]


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    with pytest.raises(WrongUse, match="train until its first epoch is done"):
        models.classifier(str(run))
    save_file({"a": torch.zeros(1)}, run / "model.safetensors")
    with pytest.raises(WrongUse, match="is not the model of a `cvjobs train` run"):
        models.embedder(str(run))
    (run / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(WrongUse, match="is not the model of a `cvjobs train` run"):
        models.classifier(str(run))


def test_a_run_has_weights_of_its_own(tmp_path: Path) -> None:
    run = leave(models.trainee("small/cnn", weights="random", classes=3), tmp_path / "run")
    with pytest.raises(WrongUse, match="leave out --weights"):
        models.classifier(str(run), weights="random")
