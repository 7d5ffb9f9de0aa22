"""Choosing and loading the weights of models that come with a backbone: detectors and segmenters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from cvjobs.networks import weights as files
from cvjobs.networks.weights import Weights


def chosen(name: str, entry: Any, weights: str) -> Weights:
    """Return what ``pretrained``, ``random`` or the path of a file stands for; ``entry`` are the published weights."""
    if weights == "random":
        return files.RANDOM
    if weights == "pretrained":
        return files.fetched(entry.url, name, entry.name)
    given = files.given(weights)
    published = given.sha256.startswith(files.named_hash(entry.url))
    return Weights(entry.name, given.file, given.sha256) if published else given


def built(name: str, classes: int) -> nn.Module:
    """Return a model with that many classes, the background among them, and random weights."""
    module: nn.Module = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes)
    return module.eval()


def names(name: str, classes: int) -> list[str]:
    """Return the names of the tensors of a model with that many classes."""
    with torch.device("meta"):
        return list(built(name, classes).state_dict())


def loaded(name: str, classes: int, tensors: dict[str, Tensor], weights: Weights) -> nn.Module:
    """Return the model with the tensors of a file as its own: making random ones first would take seconds."""
    with torch.device("meta"):
        module = built(name, classes)
    files.fitted(lambda: module.load_state_dict(tensors, assign=True), f"torchvision/{name}", weights, tensors)
    return module.float()
