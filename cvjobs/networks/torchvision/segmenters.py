"""torchvision's semantic segmentation models, with the preprocessing and the classes of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import segmentation

from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse, nearest
from cvjobs.images.transform import Transform
from cvjobs.networks import class_names
from cvjobs.networks import weights as files
from cvjobs.networks.segmentation.segmenter import Segmenter
from cvjobs.networks.torchvision import loading

_AUXILIARY = "aux_classifier."


def names() -> list[str]:
    """Return the names of torchvision's semantic segmentation models."""
    return list(models.list_models(module=segmentation))


def segmenter(name: str, weights: str, labels: Sequence[str]) -> Segmenter:
    """Return a segmenter whose categories are the background with the id 0, then 1..N under the names in ``labels``.

    Without ``labels`` they have their published names. Weights are ``pretrained``, ``random`` or a file, which may
    hold the auxiliary classifier of a training or not: it is left out.
    """
    full = f"torchvision/{name}"
    if name not in names():
        raise WrongUse(f"There is no model {full}{nearest(name, names())}: `cvjobs models --task segment` lists them.")
    entry = models.get_model_weights(name).DEFAULT
    background, *published = entry.meta["categories"]
    chosen = loading.chosen(full, entry, weights)
    if chosen.file is None:
        named = list(labels or published)
        with files.seeded():
            module = loading.built(name, len(named) + 1)
    else:
        tensors, chosen = files.of_model(chosen, partial(loading.names, name, len(published) + 1))
        tensors = {key: value for key, value in tensors.items() if not key.startswith(_AUXILIARY)}
        classes = _classes(name, tensors, len(published) + 1)
        named = class_names.for_head(classes - 1, labels, published, full)
        files.say_head(chosen, classes - 1, len(published))
        module = loading.loaded(name, classes, tensors, chosen)
    return Segmenter(
        name=full,
        weights=chosen,
        transform=preprocessing(entry),
        categories=[Category(i, label) for i, label in enumerate([background, *named])],
        module=Logits(module),
    )


class Logits(nn.Module):
    """The logits of a segmentation model on its own coarse grid, before it resizes them to its input."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.classifier = model.backbone, model.classifier
        self._both = isinstance(model, segmentation.LRASPP)  # its classifier takes the features of two depths

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, classes, h, w) of (B, 3, H, W)."""
        features = self.backbone(images)
        logits: Tensor = self.classifier(features if self._both else features["out"])
        return logits


def _classes(name: str, tensors: dict[str, Any], published: int) -> int:
    """Return how many classes, with the background, the head in a state dict has; the published number if in doubt."""
    with torch.device("meta"):
        key = [key for key in loading.built(name, published).state_dict() if key.startswith("classifier.")][-1]
    head = tensors.get(key)
    return len(head) if isinstance(head, Tensor) and head.ndim == 1 and len(head) > 1 else published


def preprocessing(entry: Any) -> Transform:
    """Return how a model of published weights sees images."""
    preset = entry.transforms()
    (short,) = preset.resize_size
    return Transform(
        resize=short,
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
