"""`torchvision/NAME`: every torchvision model, with the preprocessing of its weights; a module for each kind."""

from __future__ import annotations

from collections.abc import Sequence

from cvjobs.networks.detection.detector import Detector
from cvjobs.networks.segmentation.segmenter import Segmenter
from cvjobs.networks.torchvision import classifiers, detectors, segmenters
from cvjobs.networks.torchvision.classifiers import classifier, embedder, trainable
from cvjobs.networks.torchvision.detectors import detector

__all__ = ["classifier", "detector", "embedder", "names", "segmenter", "trainable"]


def names(task: str) -> list[str]:
    """Return the names of torchvision's models for a task."""
    if task == "detect":
        return detectors.names()
    if task == "segment":
        return [*segmenters.names(), *detectors.names(masks=True)]
    return classifiers.names() if task in ("embed", "classify", "train") else []


def segmenter(name: str, weights: str, labels: Sequence[str]) -> Segmenter | Detector:
    """Return a model that gives each pixel a class, or a detector with masks."""
    if name in detectors.names(masks=True):
        return detector(name, weights, labels, masks=True)
    return segmenters.segmenter(name, weights, labels)
