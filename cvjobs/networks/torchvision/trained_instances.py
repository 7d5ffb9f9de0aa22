"""torchvision's Mask R-CNNs to be trained, with new heads and perhaps another backbone; see ``trained_detectors``."""

from __future__ import annotations

from collections.abc import Sequence

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.networks.detection.detector_anchors import DetectorAnchors
from cvjobs.networks.torchvision import detectors, trained_detectors
from cvjobs.networks.trainable import Trainable


def names() -> list[str]:
    """Return the names of the models with masks that can be trained."""
    return detectors.names(masks=True)


def trainable(
    name: str,
    weights: str,
    labels: Sequence[str],
    side: int | None,
    seed: int,
    backbone: Trainable | None,
    *,
    anchors: DetectorAnchors | None = None,
) -> Trainable:
    """Return a Mask R-CNN with new heads for the classes ``labels``; arguments as ``trained_detectors.trainable``.

    Raises:
        WrongUse: there is no such model, or its weights are not to be had.
    """
    if name not in names():
        raise WrongUse(
            f"torchvision/{name} gives no masks of objects{nearest(name, names())}: choose one of "
            f"{', '.join(names())}, or --kind semantic."
        )
    return trained_detectors.made(name, weights, labels, side, seed, backbone, anchors=anchors)
