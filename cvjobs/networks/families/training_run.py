"""The folder of a training run as a model: its best checkpoint, with its own preprocessing and classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse, limit
from cvjobs.images.transform import Transform
from cvjobs.networks import class_names, detector_training, local_copies, registry, segmenters_to_train, torch_network
from cvjobs.networks import weights as files
from cvjobs.networks.detection.detector import Detector
from cvjobs.networks.detection.detector_anchors import DetectorAnchors
from cvjobs.networks.segmentation.segmenter import Segmenter
from cvjobs.networks.torch_network import TorchClassifier, TorchEmbedder
from cvjobs.networks.torchvision import trained_detectors
from cvjobs.networks.trainable import Trainable
from cvjobs.networks.weights import Weights

FILE = local_copies.RUN_MODEL
ABOUT = "cvjobs"  # the key of the file's metadata with what a run says of its model


def names(task: str) -> list[str]:
    """Return ``RUN``, which stands for the folder of any run."""
    return ["RUN"] if task in ("embed", "classify", "detect", "segment") else []


def embedder(name: str, weights: str, layer: str) -> TorchEmbedder:
    """Return the run's model; its vector is the pooled features before the head, or a named layer's pooled output."""
    found = _open(name, weights)
    if found.task in ("segment", "detect", "instance"):
        command = "detect" if found.task == "detect" else "segment"
        raise WrongUse(f"The run {name} has no vectors of whole images: give it to `cvjobs {command}`.")
    trained = found.trainable
    return torch_network.embedder(trained.name, found.transform, found.weights, trained.module, layer, trained.pooled)


def classifier(name: str, weights: str, labels: Sequence[str]) -> TorchClassifier:
    """Return the run's model; its classes have the names of the training data, or those given."""
    found = _open(name, weights)
    if found.task == "detect":
        raise WrongUse(f"The run {name} finds boxes and names no images: give it to `cvjobs detect`.")
    if found.task == "autoencoder":
        raise WrongUse(f"The run {name} is an autoencoder and knows no classes: give it to `cvjobs embed`.")
    if found.task in ("segment", "instance"):
        raise WrongUse(f"The run {name} is a segmenter: give it to `cvjobs segment`.")
    return torch_network.classifier(
        found.trainable.name, found.transform, found.weights, found.trainable.module, labels, ()
    )


def detector(name: str, weights: str, labels: Sequence[str]) -> Detector:
    """Return the run's detector; its classes have the names of the training data, or those given."""
    found = _open(name, weights)
    if found.task not in ("detect", "instance"):
        raise WrongUse(f"The run {name} finds no boxes: name one of `cvjobs train --task detect`.")
    return _detector(found, labels)


def _detector(found: OpenedRun, labels: Sequence[str], *, masks: bool = False) -> Detector:
    known = files.head(found.weights).labels
    named = class_names.for_head(len(known), labels, known, found.trainable.name)
    trained = replace(found.trainable, transform=found.transform)
    return trained_detectors.detector(trained, named, found.weights, masks=masks)


def segmenter(name: str, weights: str, labels: Sequence[str]) -> Segmenter | Detector:
    """Return the run's model; its classes have the names of the training data or others.

    Those of a semantic segmenter have the ids of the masks that it learnt from.
    """
    found = _open(name, weights)
    if found.task == "instance":
        return _detector(found, labels, masks=True)
    if found.task != "segment":
        raise WrongUse(f"The run {name} is no segmenter: give it to `cvjobs classify` or `cvjobs embed`.")
    own = files.head(found.weights).labels
    named = class_names.for_head(len(own), labels, own, found.trainable.name)
    return Segmenter(
        name=found.trainable.name,
        weights=found.weights,
        transform=whole_pictures(found.transform),
        categories=[Category(at, label) for at, label in enumerate(named)],
        module=found.trainable.module,
    )


def whole_pictures(transform: Transform) -> Transform:
    """Return how a segmenter sees images that was trained on square crops: whole, reduced to the side of the crops."""
    assert transform.size is not None
    return replace(transform, size=None, resize=transform.size[0], fit="whole")


@dataclass(frozen=True)
class OpenedRun:
    """A run's best model so far: its task, its module on the CPU in evaluation mode, and how it sees images."""

    task: str
    trainable: Trainable
    transform: Transform
    weights: Weights


def opened(name: str) -> OpenedRun:
    """Return the model of a run.

    Raises:
        WrongUse: there is none yet, it is damaged, or its file is not a run's.
    """
    return _open(name, "pretrained")


def _open(name: str, weights: str) -> OpenedRun:
    if weights != "pretrained":
        raise WrongUse(f"The run {name} has weights of its own: leave out --weights.")
    file = Path(local_copies.run_folder(name)) / FILE
    if not file.is_file():
        raise WrongUse(f"The run {name} has no {FILE} yet: train until its first epoch is done.")
    found = files.from_file(file, file.absolute().parent.name)
    known = about(file)
    transform = Transform.load(known["transform"])
    assert transform.size is not None
    task, model, side = known.get("task", "classify"), known["model"], transform.size[0]
    if task in ("detect", "instance"):
        trainable = detector_training.detector(
            model,
            weights="random",
            labels=files.head(found).labels,
            side=side,
            backbone=known.get("backbone", ""),
            anchors=DetectorAnchors.of(known.get("anchors")),
            masks=task == "instance",
        )
    elif task == "autoencoder":
        trainable = registry.autoencoder(model, weights="random", dim=known["dim"], side=side)
    elif task == "segment":
        trainable = segmenters_to_train.trainable_segmenter(
            model, weights="random", classes=known["classes"], side=side
        )
    else:
        trainable = registry.trainable(model, weights="random", classes=known["classes"], side=side)
    files.fitted(lambda: trainable.module.load_state_dict(files.state(found)), trainable.name, found)
    trainable.module.eval()
    return OpenedRun(task, trainable, transform, found)


def about(file: Path) -> dict[str, Any]:
    """Return what the run wrote of its model: ``task``, ``model``, ``classes`` (a number), ``dim``, ``transform``."""
    try:
        with safe_open(file, "pt") as held:
            known: dict[str, Any] = json.loads((held.metadata() or {})[ABOUT])
        complete = isinstance(known["model"], str) and isinstance(known["classes"], int) and known["transform"]["size"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        if reached := limit(error):
            raise reached from error
        complete = False
    if not complete:
        raise WrongUse(f"{file} is not the model of a `cvjobs train` run: name the -o folder of one.")
    return known
