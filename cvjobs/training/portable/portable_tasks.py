"""A run as a model for other programs: for each task the module that leaves the house, and the card of its file."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cvjobs.common.errors import WrongUse
from cvjobs.images.transform import Transform
from cvjobs.networks import weights as files
from cvjobs.networks.detection.detector import Detector
from cvjobs.networks.detection.nms import kept
from cvjobs.networks.families import training_run
from cvjobs.networks.families.training_run import OpenedRun
from cvjobs.networks.licences import Licence
from cvjobs.networks.torchvision import trained_detectors
from cvjobs.training.portable.portable_detector import PortableDetector
from cvjobs.training.portable.portable_model import PortableModel

_LEAST = 256  # pixels of a picture's longer side by which exporters follow a network: no map of it has one row only
Sides = tuple[tuple[int, int], ...]


def of_run(run: str, licence: Licence) -> PortableModel:
    """Return the best model that a run has so far; ``licence`` has those of what it began with.

    Raises:
        WrongUse: see ``training_run.opened``; or its task has no place in a file.
    """
    return of_opened(run, training_run.opened(run), licence)


def of_opened(run: str, opened: OpenedRun, licence: Licence) -> PortableModel:
    """Return the model of a run that was opened, under the name ``run``; raises WrongUse as ``of_run``."""
    if opened.task not in _TASKS:
        raise WrongUse(f"{run} was trained for {opened.task}, which has no place in a file: name another run.")
    assert opened.weights.file is not None
    tensors = opened.trainable.module.state_dict()  # before a task's function takes the head away
    made = _TASKS[opened.task](opened)
    return PortableModel(
        run=run,
        name=opened.trainable.name,
        task=opened.task,
        module=made.module.eval(),
        outputs=made.outputs,
        transform=opened.transform,
        card={**made.card, **_colours(opened.transform)},
        about=training_run.about(opened.weights.file),
        licence=licence,
        tensors=tensors,
        sides=made.sides,
        most=made.most,
        own=made.own,
    )


class LogitsAndVectors(nn.Module):
    """A classifier and the same up to its head, of the same tensors."""

    def __init__(self, classifier: nn.Module, pooled: nn.Module) -> None:
        super().__init__()
        self.pooled, self.classifier = pooled, classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, classes) and vectors (B, dim) of (B, 3, H, W) images."""
        vector = self.pooled(images)
        return self.classifier(images), vector


class OneOutput(nn.Module):
    """A module with one output."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Return the output for (B, 3, H, W) images."""
        return (self.module(images),)


@dataclass(frozen=True)
class _Made:
    """What a task adds to a ``PortableModel``."""

    module: nn.Module
    outputs: tuple[str, ...]
    card: Mapping[str, Any]
    sides: Sides
    most: int = 0
    own: Callable[[Tensor], tuple[Tensor, ...]] | None = None


def _classifier(opened: OpenedRun) -> _Made:
    trained = opened.trainable
    tensors: dict[int, Any] = {id(one): one for one in (*trained.module.parameters(), *trained.module.buffers())}
    pooled = trained.pooled(copy.deepcopy(trained.module, tensors))
    head = files.head(opened.weights)
    card = {
        "task": "classify",
        "output": "logits",
        "outputs": {"logits": "logits", "vector": "vector"},
        "labels": list(head.labels),
        "activation": head.activation,
        **_of_one_size(opened.transform),
    }
    return _Made(LogitsAndVectors(trained.module, pooled), ("logits", "vector"), card, (_size(opened.transform),))


def _autoencoder(opened: OpenedRun) -> _Made:
    trained = opened.trainable
    module = OneOutput(trained.pooled(trained.module))
    card = {
        "task": "embed",
        "output": "vector",
        "outputs": {"vector": "vector"},
        **_of_one_size(opened.transform),
    }
    return _Made(module, ("vector",), card, (_size(opened.transform),))


def _detector(opened: OpenedRun) -> _Made:
    labels = files.head(opened.weights).labels
    trained = replace(opened.trainable, transform=opened.transform)
    detector = trained_detectors.detector(trained, labels, opened.weights)
    rules = detector.rules
    module = PortableDetector(detector.module, rules.long)
    outputs = ("boxes", "labels", "scores")
    card = {
        "task": "detect",
        "output": "torchvision",
        "outputs": {name: name for name in outputs},
        "labels": list(labels),
        "size": [rules.short, rules.long] if module.square else rules.long,
        "resize": "letterbox",
        "rounding": "down",
        "padding": "inside",
        "place": "corner",
        "interpolation": "bilinear",
        "antialias": False,
        "nms": "inside",
        "conf": rules.conf,
        "iou": rules.iou,
        "max_det": rules.max_det,
    }
    sides = _any(rules.long if module.square else max(rules.long, _LEAST))
    return _Made(module, outputs, card, sides, most=1, own=_found(detector))


def _found(detector: Detector) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return what gives boxes, labels and scores of a picture as `cvjobs detect` finds them, of any score above 0."""
    placed = functools.cache(lambda: detector.placed("cpu", torch.float32))
    classes = torch.tensor([category.id for category in detector.categories])

    def found(images: Tensor) -> tuple[Tensor, ...]:
        size = images.shape[2], images.shape[3]
        height, width = detector.framing.canvas(size, detector.rules)
        canvas = nn.functional.pad(images, (0, width - size[1], 0, height - size[0]))
        every, _ = placed().candidates(canvas.contiguous(memory_format=torch.channels_last), [size], 0.0)
        best = every.only(kept(every, 1, detector.rules, classes)[0])
        return best.boxes, best.labels, best.scores

    return found


def _segmenter(opened: OpenedRun) -> _Made:
    transform = training_run.whole_pictures(opened.transform)
    card = {
        "task": "semantic",
        "output": "pixel-logits",
        "outputs": {"pixel-logits": "logits"},
        "labels": list(files.head(opened.weights).labels),
        "activation": "softmax",
        "size": transform.resize,
        "resize": "shrink",
        "interpolation": transform.interpolation,
    }
    return _Made(OneOutput(opened.trainable.module), ("logits",), card, _any(max(transform.resize, _LEAST)))


# By the task of a run.
_TASKS: dict[str, Callable[[OpenedRun], _Made]] = {
    "classify": _classifier,
    "autoencoder": _autoencoder,
    "detect": _detector,
    "segment": _segmenter,
}


def _any(side: int) -> Sides:
    """Return sizes, landscape and portrait, of which no side is a multiple of another's."""
    return (side * 3 // 4 - 1, side), (side, side * 2 // 3)


def _size(transform: Transform) -> tuple[int, int]:
    assert transform.size is not None
    return transform.size


def _of_one_size(transform: Transform) -> dict[str, Any]:
    """Return how images of one size reach a model in the words of a card."""
    if transform.fit not in ("short", "exact"):
        raise WrongUse("The images of this run are prepared in a way that a file cannot tell: name another run.")
    how: dict[str, Any] = {"resize": "squash"}
    if transform.fit == "short":
        how = {"resize": "crop", "short": transform.resize}
    return {"size": list(_size(transform)), **how, "interpolation": transform.interpolation}


def _colours(transform: Transform) -> dict[str, Any]:
    """Return what the values of an image are for a model in the words of a card."""
    return {
        "channels": "RGB",
        "layout": "NCHW",
        "scale": 1,
        "mean": list(transform.mean),
        "std": list(transform.std),
    }
