"""torchvision's heads for segmenters on timm's classifiers: their maps, their weights, and what has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from cvjobs.common.errors import WrongUse
from cvjobs.networks import registry
from cvjobs.networks.segmenters_to_train import trainable_segmenter
from cvjobs.networks.torchvision.segmenter_training import composed

NAME = "mobilenetv3_small_050"


def test_the_maps_are_those_of_the_classifier_with_its_weights(tmp_path: Path) -> None:
    model: Any = timm.create_model(NAME).eval()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "weights.safetensors")
    found = trainable_segmenter(
        composed("lraspp_mobilenet_v3_large", NAME), weights=str(tmp_path / "weights.safetensors"), classes=3, side=64
    )
    assert found.name == f"torchvision/lraspp+timm/{NAME}"
    assert found.weights.file is not None
    module: Any = found.module
    images = torch.rand(1, 3, 128, 192)
    with torch.inference_mode():
        maps = module.backbone(images)
        assert [tuple(maps[key].shape[2:]) for key in ("low", "out")] == [(16, 24), (8, 12)]  # the last one dilated
        # The layers before the dilated ones see what the classifier's do.
        shallow = model.blocks[:2](model.bn1(model.conv_stem(images)))
        assert torch.allclose(maps["low"], shallow, atol=1e-5)
    logits = module.train()(torch.rand(2, 3, 64, 64))
    assert tuple(logits.shape) == (2, 1, 3, 64, 64)


def test_the_licence_is_that_of_the_backbone() -> None:
    assert registry.licence(f"torchvision/fcn+timm/{NAME}", "segment").code == "Apache-2.0"


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224", "timm/swin_tiny_patch4_window7_224", "small/cnn"])
def test_what_has_no_maps_is_one_sentence(name: str) -> None:
    with pytest.raises(WrongUse, match="has no feature maps that a segmenter could be built on: choose"):
        trainable_segmenter(composed("fcn_resnet50", name), weights="random", classes=3, side=64)
