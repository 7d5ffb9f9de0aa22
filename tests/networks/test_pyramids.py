"""Detectors on a feature pyramid of a classifier: copies are what they are copies of, in mode and in results."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from cvjobs.networks import detector_training
from cvjobs.networks.torchvision import trained_detectors
from cvjobs.networks.weights import RANDOM

SIDE = 96


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "timm/resnet18"])
def test_a_trained_detector_finds_what_torchvisions_own_does(backbone: str) -> None:
    """Its copy for a device is in evaluation mode: by the statistics of a batch it would find something else."""
    trained = detector_training.detector(
        "fasterrcnn_resnet50_fpn", weights="random", labels=("disc", "box"), side=SIDE, backbone=backbone
    )
    module: Any = trained.module.get_submodule("detector").eval()
    random = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):  # as after a training
            part.register_buffer("running_mean", torch.rand(part.num_features, generator=random) - 0.5)
            part.register_buffer("running_var", 1 + torch.rand(part.num_features, generator=random))
    pictures = [np.random.default_rng(i).integers(0, 256, (72, 96, 3), dtype=np.uint8) for i in range(2)]
    found = trained_detectors.detector(trained, ("disc", "box"), RANDOM).load("cpu", "fp32")(pictures)
    plain = copy.deepcopy(module)
    plain.transform = GeneralizedRCNNTransform(SIDE, SIDE, list(trained.transform.mean), list(trained.transform.std))
    with torch.inference_mode():
        expected = plain([torch.from_numpy(picture).permute(2, 0, 1) / 255 for picture in pictures])
    for own, theirs in zip(found, expected, strict=True):
        assert own is not None
        assert len(own.scores) == len(theirs["scores"]) > 10
        np.testing.assert_allclose(own.scores, theirs["scores"], atol=1e-4)
        np.testing.assert_allclose(own.boxes, theirs["boxes"], atol=0.05)


def test_a_copy_is_in_the_mode_of_each_part() -> None:
    trainee = detector_training.detector(
        "retinanet_resnet50_fpn", weights="random", labels=("disc",), side=SIDE, backbone="mobilenet_v2"
    ).module
    for mode in (True, False):
        trainee.train(mode)
        trainee.get_submodule("detector.backbone.body.features.3").eval()
        copied = copy.deepcopy(trainee)
        assert [part.training for part in copied.modules()] == [part.training for part in trainee.modules()]
