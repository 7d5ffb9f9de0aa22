"""`torchvision/NAME`: every torchvision model, with the preprocessing of its weights; a module for each kind."""

from __future__ import annotations

from cvjobs.models.torchvision import classifiers
from cvjobs.models.torchvision.classifiers import classifier, embedder

__all__ = ["classifier", "embedder", "names"]


def names(task: str) -> list[str]:
    """Return the names of torchvision's models for a task."""
    return classifiers.names() if task in ("embed", "classify") else []
