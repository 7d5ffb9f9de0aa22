"""What every worker of a training is told: small values and the places of the rest; and what it leaves in the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cvjobs.common.errors import WrongUse
from cvjobs.images.transform import Transform
from cvjobs.networks import detector_training, licences, local_copies, registry, segmenters_to_train
from cvjobs.networks import weights as networks_weights
from cvjobs.networks.detection.detector_anchors import DetectorAnchors
from cvjobs.networks.head_transfer import OPTION
from cvjobs.networks.licences import Licence
from cvjobs.networks.precision import resolve_precision
from cvjobs.networks.torch_network import TYPES
from cvjobs.networks.trainable import Trainable
from cvjobs.storage.store import Store, begun_store
from cvjobs.training.data import labels as data_labels
from cvjobs.training.data.decode_order import DecodeOrder
from cvjobs.training.data.decode_request import DecodedImages
from cvjobs.training.data.image_objects import ImageObjects
from cvjobs.training.recipe import sampling
from cvjobs.training.recipe.augment import Augment, Augmentation, Form
from cvjobs.training.recipe.canvases import CanvasAugment
from cvjobs.training.recipe.detection_recipe import losses_of
from cvjobs.training.recipe.mosaics import MosaicAugment
from cvjobs.training.recipe.recipe import Recipe

MODEL, HISTORY, ERRORS, LEAKS = "model.safetensors", "history.parquet", "errors.parquet", "leaks.parquet"

TaskName = Literal["classify", "autoencoder", "segment", "detect", "instance"]
OF_OBJECTS = ("detect", "instance")  # tasks whose images have objects with boxes; the latter's have masks


@dataclass(frozen=True, kw_only=True)
class SplitPart:
    """The images of a split that could be decoded: their paths and labels, both in the order of the pictures.

    ``objects`` are those that a detector learns.
    """

    decoded: DecodedImages
    paths: Sequence[str]
    labels: NDArray[np.integer]
    objects: ImageObjects | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is trained: a model by name, what it begins with, and what it is to end in.

    ``classes`` are a classifier's, ``dim`` is the length of an autoencoder's vectors; ``side`` is that of the images
    in pixels, None for the model's own. ``init_head`` is whether a classifier's head begins with rows of the weights'.
    ``backbone`` is the classifier below a detector's head, empty for its own; ``anchors`` are those that a detector is
    given, None for its own.
    """

    task: TaskName
    model: str
    weights: str
    classes: tuple[str, ...]
    dim: int
    side: int | None
    seed: int
    init_head: bool
    backbone: str = ""
    anchors: DetectorAnchors | None = None

    def trainable(self) -> Trainable:
        """Return the model as training begins with it; raises WrongUse as ``registry.trainable``."""
        if self.task == "autoencoder":
            if self.init_head:
                raise WrongUse(f"{OPTION} is about classes, which --task autoencoder has none of: leave it out.")
            return registry.autoencoder(self.model, weights=self.weights, dim=self.dim, side=self.side, seed=self.seed)
        if self.task in OF_OBJECTS:
            return detector_training.detector(
                self.model,
                weights=self.weights,
                labels=self.classes,
                side=self.side,
                seed=self.seed,
                backbone=self.backbone,
                anchors=self.anchors,
                masks=self.task == "instance",
            )
        make = segmenters_to_train.trainable_segmenter if self.task == "segment" else registry.trainable
        return make(
            self.model,
            weights=self.weights,
            classes=len(self.classes),
            side=self.side,
            seed=self.seed,
            labels=self.classes if self.init_head else (),
        )


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """One training. ``batch`` is the images of a step over all workers; ``multilabel`` tells of images of many classes.

    ``memory`` is what a worker needs for its share of a step in bytes, 0 where it is unknown, and ``flops`` are the
    operations of the forward pass of one image, as ``memory.Estimate`` has them. ``compiled`` is whether the network is
    compiled. ``begun_epochs`` are those of the run's first command, 0 where they are the recipe's.
    ``limited``: there is a limit of time or money. ``run`` is a folder, or a prefix of a bucket, which is reached with
    the options ``storage``. ``licence`` is that of the weights that it begins with. ``decoding`` is what each machine
    decodes for its workers, None where all see what the command's decodes; then ``test`` are the images that the first
    worker tests on, None without any. ``canvas_step`` is what the sides of a detector's canvases are multiples of, 0
    for squares.
    """

    run: str
    subject: Subject
    weights_sha256: str
    multilabel: bool
    tensorboard: bool
    recipe: Recipe
    batch: int
    precision: str
    transform: Transform
    train: SplitPart
    val: SplitPart
    memory: int = 0
    flops: float = 0.0
    compiled: bool = False
    begun_epochs: int = 0
    canvas_step: int = 0
    limited: bool = False
    storage: Mapping[str, str] = field(default_factory=dict, repr=False)
    licence: Licence = licences.UNSAID
    decoding: DecodeOrder | None = None
    test: SplitPart | None = field(default=None, repr=False)

    def store(self, check: Callable[[], None] | None = None) -> Store:
        """Return where the run's files are; ``check`` may refuse that one is written by raising."""
        return begun_store(self.run, self.storage, check)

    def trainable(self) -> Trainable:
        """Return the model as training begins with it, which learns by the losses of the recipe."""
        found = self.subject.trainable()
        if self.subject.task == "detect":
            learner: Any = found.module  # a DetectionTrainee
            counts = self.train.objects.counts(len(self.classes)) if self.train.objects is not None else []
            learner.learn_by(losses_of(self.recipe, counts), found.name)
        return found

    def trained(self) -> nn.Module:
        """Return the best model that the run has so far, in evaluation mode, on the CPU."""
        module = self.subject.trainable().module.eval()
        file = local_copies.file(self.store(), MODEL) or f"{self.run}/{MODEL}"
        module.load_state_dict(networks_weights.state(networks_weights.given(str(file))))
        return module

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the numbers of the training images in the order of an epoch, from 0; see ``sampling.order``."""
        together = self.train.decoded.length if self.train.decoded.whole else 0
        return sampling.order(self.train.labels, self.recipe, self.seed, epoch, together)

    def augmentation(self, side: int, device: torch.device, epoch: int = 0) -> Augmentation:
        """Return the augmentation of training images to squares of a side in pixels, in an epoch from 0."""
        mean, std = self.transform.mean, self.transform.std
        if self.subject.task in OF_OBJECTS:
            canvases = CanvasAugment(self.recipe, side, mean, std, device, self.canvas_step)
            several = self.recipe.mosaic or self.recipe.mixup
            return MosaicAugment(canvases, self.recipe, epoch) if several else canvases
        return Augment(self.recipe, side, mean, std, device, self.form)

    @property
    def form(self) -> Form:
        """What the training images are before they are cropped."""
        if not self.train.decoded.whole:
            return "square"
        if self.subject.task == "segment":
            return "padded"
        return "squashed" if self.transform.fit == "exact" else "whole"

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of a classifier."""
        return self.subject.classes

    @property
    def seed(self) -> int:
        """What everything random follows from."""
        return self.subject.seed

    @property
    def counts(self) -> list[int]:
        """How many training images show each class."""
        counted: list[int] = data_labels.counts(self.train.labels, len(self.classes)).tolist()
        return counted

    def metadata(self, epoch: int, metric: float) -> dict[str, str]:
        """Return the metadata of the model's file, by which it is a model everywhere."""
        return metadata(self.subject, self.transform, epoch, metric, multilabel=self.multilabel)


def metadata(subject: Subject, transform: Transform, epoch: int, metric: float, *, multilabel: bool) -> dict[str, str]:
    """See ``TrainPlan.metadata``."""
    about = {
        "task": subject.task,
        "model": subject.model,
        "classes": len(subject.classes),
        "dim": subject.dim,
        "transform": replace(transform, truncated="fail").record(),  # what it learned from is no part of the model
        "epoch": epoch,
        "metric": metric,
    }
    if subject.task in OF_OBJECTS:
        about["backbone"] = subject.backbone
        if subject.anchors is not None:
            about["anchors"] = subject.anchors.record()
        return {"labels": json.dumps(list(subject.classes)), "cvjobs": json.dumps(about)}
    if not subject.classes:
        return {"cvjobs": json.dumps(about)}
    activation: networks_weights.Activation = "sigmoid" if multilabel and subject.task == "classify" else "softmax"
    return {"labels": json.dumps(list(subject.classes)), "activation": activation, "cvjobs": json.dumps(about)}


def resolved(precision: str, device: str) -> str:
    """Return ``fp32``, ``bf16`` or ``fp16``, as ``resolve_precision``; float16 trains on a CPU, too, slowly."""
    return precision if precision == "fp16" else resolve_precision(precision, device)


def kind(precision: str) -> torch.dtype:
    """Return the type that a network computes in."""
    return TYPES[precision]
