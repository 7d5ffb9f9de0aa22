"""`torchvision/NAME`: every torchvision model, with the preprocessing of its weights; a module for each kind."""

from __future__ import annotations

from collections.abc import Sequence

from torchvision import models

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.networks import licences, registry
from cvjobs.networks.detection.detector import Detector
from cvjobs.networks.detection.detector_anchors import DetectorAnchors
from cvjobs.networks.licences import Licence
from cvjobs.networks.segmentation.segmenter import Segmenter
from cvjobs.networks.torchvision import (
    classifiers,
    detectors,
    segmenter_training,
    segmenters,
    trained_detectors,
    trained_instances,
)
from cvjobs.networks.torchvision.classifiers import classifier, embedder, trainable
from cvjobs.networks.torchvision.detectors import detector
from cvjobs.networks.torchvision.segmenter_training import trainable as trainable_segmenter
from cvjobs.networks.trainable import Trainable

__all__ = [
    "classifier",
    "detector",
    "embedder",
    "licence",
    "names",
    "segmenter",
    "trainable",
    "trainable_detector",
    "trainable_instances",
    "trainable_segmenter",
]


_LICENCE = "BSD-3-Clause"
# What the metadata of weights name by an address.
_NAMED = {"https://github.com/facebookresearch/SWAG/blob/main/LICENSE": "CC-BY-NC-4.0"}


def names(task: str) -> list[str]:
    """Return the names of torchvision's models for a task."""
    if task == "detect":
        return detectors.names()
    if task == "segment":
        return [*segmenters.names(), *detectors.names(masks=True)]
    return classifiers.names() if task in ("embed", "classify", "train") else []


def licence(name: str) -> Licence:
    """Return torchvision's own licence, which is that of its default weights, too, where these name no other."""
    name = segmenter_training.licence_name(name)
    if "/" in name:
        return registry.licence(name, "train")
    known = {*classifiers.names(), *segmenters.names(), *detectors.names()}
    if name not in known:
        raise WrongUse(f"There is no model torchvision/{name}{nearest(name, known)}: `cvjobs models` lists them.")
    named = models.get_model_weights(name).DEFAULT.meta.get("license")
    return Licence(code=_LICENCE, weights=_NAMED.get(named, licences.UNKNOWN) if named else _LICENCE)


def segmenter(name: str, weights: str, labels: Sequence[str]) -> Segmenter | Detector:
    """Return a model that gives each pixel a class, or a detector with masks."""
    if name in detectors.names(masks=True):
        return detector(name, weights, labels, masks=True)
    return segmenters.segmenter(name, weights, labels)


def trainable_detector(
    name: str,
    weights: str,
    labels: Sequence[str],
    side: int | None,
    seed: int,
    backbone: Trainable | None,
    *,
    anchors: DetectorAnchors | None,
) -> Trainable:
    """Return a detector with a new head for classes, perhaps on another backbone; see ``trained_detectors``."""
    return trained_detectors.trainable(name, weights, labels, side, seed, backbone, anchors=anchors)


def trainable_instances(
    name: str,
    weights: str,
    labels: Sequence[str],
    side: int | None,
    seed: int,
    backbone: Trainable | None,
    *,
    anchors: DetectorAnchors | None,
) -> Trainable:
    """Return a detector with masks, likewise; see ``trained_instances``."""
    return trained_instances.trainable(name, weights, labels, side, seed, backbone, anchors=anchors)


def detector_anchors(name: str, on_backbone: bool) -> DetectorAnchors:
    """Return the anchors that a detector has by itself; see ``trained_detectors``."""
    return trained_detectors.anchors(name, on_backbone=on_backbone)
