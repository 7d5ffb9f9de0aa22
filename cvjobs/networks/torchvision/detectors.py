"""torchvision's detectors, with the classes, sizes and thresholds of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision import models
from torchvision.models import detection

from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse, nearest
from cvjobs.images.transform import Transform
from cvjobs.networks import class_names
from cvjobs.networks import weights as files
from cvjobs.networks.detection.detector import Detector
from cvjobs.networks.detection.settings import Rules
from cvjobs.networks.torchvision import anchor_shapes, loading
from cvjobs.networks.torchvision.architectures import OneStage, Ssd, TwoStages
from cvjobs.networks.weights import Weights

_NO_CLASSES = ("__background__", "N/A")
# Published with batch norms that add nothing to the variance; torchvision builds them so for these weights only.
_NO_EPSILON = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn")


def names(masks: bool = False) -> list[str]:
    """Return the names of torchvision's detectors of boxes, or of those with masks alone."""
    found = [name for name in models.list_models(module=detection) if not name.startswith("keypoint")]
    return [name for name in found if name.startswith("maskrcnn")] if masks else found


def detector(name: str, weights: str, labels: Sequence[str], masks: bool = False) -> Detector:
    """Return a detector whose categories have the ids 1..N of the model's classes, under the names in ``labels``.

    Without ``labels`` they have their published names. Weights are ``pretrained``, ``random`` or a file. With
    ``masks`` it finds a mask for each box.
    """
    full = f"torchvision/{name}"
    if name not in names():
        raise WrongUse(f"There is no model {full}{nearest(name, names())}: `cvjobs models --task detect` lists them.")
    entry = models.get_model_weights(name).DEFAULT
    published: list[str] = entry.meta["categories"][1:]
    chosen = loading.chosen(full, entry, weights)
    if chosen.file is None:
        with files.seeded():
            module = loading.built(name, len(labels or published) + 1)
        named = list(labels or published)
    else:
        tensors, chosen = files.of_model(chosen, partial(loading.names, name, len(published) + 1))
        classes = _classes(name, tensors, len(published) + 1)
        named = class_names.for_head(classes - 1, labels, published, full)
        files.say_head(chosen, classes - 1, len(published))
        module = loading.loaded(name, classes, tensors, chosen)
        correct_norms(name, module, chosen, entry)
        if (anchors := anchor_shapes.of_file(chosen.file)) is not None:
            anchor_shapes.give(module, anchors)
    return Detector(
        name=full,
        weights=chosen,
        transform=_transform(module),
        categories=[Category(i, label) for i, label in enumerate(named, 1) if labels or label not in _NO_CLASSES],
        rules=_rules(module),
        module=module,
        architecture=architecture(module),
        masks="box" if masks else "",
    )


def _classes(name: str, tensors: dict[str, Any], published: int) -> int:
    """Return how many classes, with the background, the head in a state dict has; the published number if in doubt."""
    with torch.device("meta"):
        expected = loading.built(name, published).state_dict()
    last = [key for key in expected if ("cls_score" in key or "classification_head" in key) and key.endswith(".bias")][
        -1
    ]
    rows = tensors.get(last)
    if not isinstance(rows, torch.Tensor) or rows.ndim != 1:
        return published
    return len(rows) * published // len(expected[last]) or published


def _transform(module: Any) -> Transform:
    transform = module.transform
    return Transform(fit="native", mean=tuple(transform.image_mean), std=tuple(transform.image_std))


def _rules(module: Any) -> Rules:
    """Return what torchvision does by default."""
    transform, fixed = module.transform, module.transform.fixed_size
    heads = getattr(module, "roi_heads", module)
    short, long = (fixed[1], fixed[0]) if fixed else (transform.min_size[-1], transform.max_size)
    return Rules(
        conf=heads.score_thresh,
        iou=heads.nms_thresh,
        max_det=heads.detections_per_img,
        short=short,
        long=long,
        fixed=bool(fixed),
    )


def correct_norms(name: str, module: nn.Module, chosen: Weights, entry: Any) -> None:
    """Give the batch norms of a model with its published weights, which ``entry`` are, what they were made with."""
    if name in _NO_EPSILON and chosen.sha256.startswith(files.named_hash(entry.url)):
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eps = 0.0


def architecture(module: nn.Module) -> type[TwoStages | OneStage]:
    """Return what makes boxes of a detector's outputs."""
    if isinstance(module, detection.FasterRCNN):
        return TwoStages
    return Ssd if isinstance(module, detection.ssd.SSD) else OneStage
