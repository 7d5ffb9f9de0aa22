"""`torchvision/NAME`: every torchvision model, with the preprocessing of its weights; a module for each kind."""

from __future__ import annotations

from cvjobs.models.torchvision import classifiers, detectors
from cvjobs.models.torchvision.classifiers import classifier, embedder
from cvjobs.models.torchvision.detectors import detector

__all__ = ["classifier", "detector", "embedder", "names"]


def names(task: str) -> list[str]:
    """Return the names of torchvision's models for a task."""
    if task == "detect":
        return detectors.names()
    return classifiers.names() if task in ("embed", "classify") else []
