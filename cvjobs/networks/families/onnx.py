"""`onnx/FILE`: a model in an ONNX file of one's own, run by onnxruntime; FILE.yaml beside it says what it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cvjobs.common import extras

if TYPE_CHECKING:
    from cvjobs.networks.onnx.box_models import OnnxDetector
    from cvjobs.networks.onnx.class_map_models import OnnxSegmenter
    from cvjobs.networks.onnx.vector_models import OnnxClassifier, OnnxEmbedder


def names(task: str) -> list[str]:
    """Return ``FILE``, which stands for the path of any file."""
    return ["FILE"] if task in ("embed", "classify", "detect", "segment") else []


def embedder(name: str, weights: str, layer: str) -> OnnxEmbedder:
    """Return the model in a file as a maker of vectors; ``layer`` names one of its outputs."""
    extras.load("onnx", f"--model onnx/{name}")
    from cvjobs.networks.onnx import vector_models

    return vector_models.embedder(name, weights, layer)


def classifier(name: str, weights: str, labels: Sequence[str]) -> OnnxClassifier:
    """Return the model in a file as a classifier."""
    extras.load("onnx", f"--model onnx/{name}")
    from cvjobs.networks.onnx import vector_models

    return vector_models.classifier(name, weights, labels)


def detector(name: str, weights: str, labels: Sequence[str]) -> OnnxDetector:
    """Return the model in a file as a detector."""
    extras.load("onnx", f"--model onnx/{name}")
    from cvjobs.networks.onnx import box_models

    return box_models.detector(name, weights, labels)


def segmenter(name: str, weights: str, labels: Sequence[str]) -> OnnxDetector | OnnxSegmenter:
    """Return the model in a file as a segmenter, or a detector with masks."""
    extras.load("onnx", f"--model onnx/{name}")
    from cvjobs.networks.onnx import class_map_models

    return class_map_models.segmenter(name, weights, labels)


def described(name: str) -> list[tuple[str, str]]:
    """Return what was recognised in a file, as titles and values."""
    extras.load("onnx", f"onnx/{name}")
    from cvjobs.networks.onnx import description

    return description.described(name)
