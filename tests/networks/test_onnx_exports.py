"""Models of torchvision, exported by torch: onnx/ finds what the models themselves find."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import calibrated
import detectors
import numpy as np
import onnx_files
import pytest
import torch
from commands import here, rows
from PIL import Image
from torch import nn
from torchvision import models

from cvjobs.networks import registry

pytestmark = pytest.mark.faults(minutes=2)


class Out(nn.Module):
    """What a model of torchvision calls ``out``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(images)["out"]
        return found


def exported(model: nn.Module, path: Path, images: Any, outputs: list[str], axes: dict[str, dict[int, str]]) -> Path:
    """Write a model as an ONNX file with the input ``images``."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (images,),
            str(path),
            input_names=["images"],
            output_names=outputs,
            dynamic_axes=axes,
            dynamo=False,
            opset_version=17,
        )
    return path


def test_a_torchvision_detector_finds_what_torchvision_finds(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    weights = calibrated.weights(detectors.SMALL, tmp_path_factory)
    model = calibrated.reference(detectors.SMALL, weights, min_size=detectors.SIDE, max_size=2 * detectors.SIDE)
    sides = {1: "height", 2: "width"}
    axes = {"images": sides, "boxes": {0: "n"}, "labels": {0: "n"}, "scores": {0: "n"}}
    path = exported(model, tmp_path / "d.onnx", [torch.rand(3, 150, 200)], ["boxes", "labels", "scores"], axes)
    names = [f"class {number}" for number in range(1, 91)]
    (tmp_path / "d.yaml").write_text(f"labels: {names}\nmax_det: 100\n")
    images = [calibrated.pixels(*size, seed) for seed, size in enumerate([(150, 200), (120, 160), (200, 150)])]
    found = registry.detector(f"onnx/{path}").load("cpu", "fp32")(images)
    expected = detectors.own(detectors.SMALL, weights, images)
    for one, other, image in zip(found, expected, images, strict=True):
        detectors.same(one, other, ties=0.05)
        alone = onnx_files.outputs(path, {"images": (image / 255).transpose(2, 0, 1).astype(np.float32)})
        detectors.same(one, {name: torch.from_numpy(part) for name, part in alone.items()})


def test_a_classifier_and_an_embedder_and_a_segmenter_are_torchs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = tmp_path / "photos"
    source.mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        pixels = random.integers(0, 256, (300, 260 + 40 * number, 3), np.uint8)
        Image.fromarray(pixels).save(source / f"{number}.png")
    axes = {"images": {0: "batch"}, "out": {0: "batch"}}
    small = models.mobilenet_v3_small(weights=None)
    path = exported(small, tmp_path / "c.onnx", torch.rand(2, 3, 224, 224), ["out"], axes)
    model: Any = registry.classifier(f"onnx/{path}")
    images = random.integers(0, 256, (3, 224, 224, 3), np.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    given = ((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        wanted = small(given).numpy()
    np.testing.assert_allclose(model.load("cpu", "fp32")(images), wanted, atol=1e-3)
    assert model.labels[0] == "tench"
    ended = here("embed", source, "-o", tmp_path / "vectors", "--model", f"onnx/{path}")
    assert ended.code == 0, ended
    assert len(rows(tmp_path / "vectors")["embedding"][0]) == 1000
    lraspp = models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21)

    path = exported(Out(lraspp), tmp_path / "s.onnx", torch.rand(1, 3, 96, 128), ["out"], axes)
    ended = here("segment", source, "-o", tmp_path / "maps", "--model", f"onnx/{path}")
    assert ended.code == 0, ended
    assert rows(tmp_path / "maps").num_rows == 3
