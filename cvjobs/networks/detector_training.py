"""Detectors to be trained, by name: those of the families that offer ``trainable_detector``, on any backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cvjobs.common.errors import WrongUse
from cvjobs.networks import registry

if TYPE_CHECKING:
    from cvjobs.networks.detection.detector_anchors import DetectorAnchors
    from cvjobs.networks.trainable import Trainable

CANVAS_STEP = 32  # pixels: the strides of its maps divide the sides of what a detector sees


def detector(
    name: str,
    *,
    weights: str = "pretrained",
    labels: Sequence[str],
    side: int | None = None,
    seed: int = 0,
    backbone: str = "",
    anchors: DetectorAnchors | None = None,
    masks: bool = False,
) -> Trainable:
    """Return the detector of that name with a new head, to be trained: its module is a ``DetectionTrainee``.

    Args:
        name: ``family/model``, or a model's bare name.
        weights: what all but the head begins with, as ``registry.trainable``'s; with a ``backbone`` that.
        labels: the names of the classes.
        side: of the square images that it is trained on, in pixels; None for the model's own.
        seed: of the weights that are random.
        backbone: the classifier below the head, by its name; empty for the model's own.
        anchors: those that it has; None for the model's own.
        masks: whether it is to find the masks of objects, beside their boxes.

    Raises:
        WrongUse: as ``registry.trainable``, and for a model whose training there is no code for.
    """
    made, model = _family(name, masks=masks)
    from cvjobs.networks import weights as files  # which imports torch

    of_backbone = "random" if files.is_run(weights) else weights
    below = registry.trainable(backbone, weights=of_backbone, classes=2, seed=seed) if backbone else None
    make = made.trainable_instances if masks else made.trainable_detector
    found: Trainable = make(model, weights, labels, side, seed, below, anchors=anchors)
    return found


def own_anchors(name: str, *, on_backbone: bool) -> DetectorAnchors:
    """Return the anchors that the detector of that name has by itself, with its own backbone or on another.

    Raises:
        WrongUse: it has none, or as ``detector``.
    """
    made, model = _family(name)
    found: DetectorAnchors = made.detector_anchors(model, on_backbone)
    return found


def _family(name: str, *, masks: bool = False) -> tuple[Any, str]:
    family, model = registry.find(name, "segment" if masks else "detect")
    made: Any = family
    if not hasattr(made, "trainable_instances" if masks else "trainable_detector"):
        which = "Mask R-CNNs" if masks else "detectors"
        raise WrongUse(f"{name} cannot be trained: choose one of torchvision's {which}.")
    return made, model
