"""The anchors of ``--anchors auto``: fitted to the boxes that are trained on, at the size of the training."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvjobs.common import devices
from cvjobs.common.errors import WrongUse
from cvjobs.common.paths import path_bytes
from cvjobs.evaluation.ground_truth import image_sizes
from cvjobs.networks import detector_training
from cvjobs.networks.detection.detector_anchors import AT, DetectorAnchors
from cvjobs.training.data.labels import LabelledImages
from cvjobs.training.recipe import anchors, default_boxes
from cvjobs.training.recipe.anchors import AnchorLevels, Shapes
from cvjobs.training.recipe.default_boxes import DefaultBoxes

MOST = 10_000  # images whose boxes are looked at


def fitted(labelled: LabelledImages, model: str, backbone: str, side: int) -> DetectorAnchors:
    """Return anchors for a detector, as many as its own, with the recall that they and its own reach.

    The same for the same images with the same objects. Of more than 10,000 images as many are looked at, evenly.

    Args:
        labelled: the images, on this machine, with their objects.
        model: the detector by its name.
        backbone: the classifier below its head, empty for its own.
        side: of the images in training, in pixels.

    Raises:
        WrongUse: the detector has no anchors, or there are too few boxes to fit them to.
    """
    own = detector_training.own_anchors(model, on_backbone=bool(backbone))
    boxes = training_boxes(labelled, side)
    needed = sum(map(len, own.sizes)) + len(own.scales)
    if len(boxes) < needed:
        raise WrongUse(f"--anchors auto needs {needed} boxes or more to train on, of {len(boxes)}: leave it out.")
    if own.scales:
        made = default_boxes.fitted(boxes / side, DefaultBoxes(scales=own.scales, aspect_ratios=own.aspect_ratios))
        default = DefaultBoxes(scales=own.scales, aspect_ratios=own.aspect_ratios).shapes * side
        return DetectorAnchors(
            scales=made.scales,
            aspect_ratios=made.aspect_ratios,
            recall=_recalls(boxes, made.shapes * side),
            default_recall=_recalls(boxes, default),
        )
    levels = anchors.fitted(boxes, len(own.sizes), len(own.sizes[0]), len(own.aspect_ratios[0]))
    default = AnchorLevels(sizes=own.sizes, aspect_ratios=own.aspect_ratios).shapes
    return DetectorAnchors(
        sizes=levels.sizes,
        aspect_ratios=levels.aspect_ratios,
        recall=_recalls(boxes, levels.shapes),
        default_recall=_recalls(boxes, default),
    )


def training_boxes(labelled: LabelledImages, side: int) -> Shapes:
    """Return widths and heights of the boxes to train on in pixels, where the longer side of an image is ``side``."""
    split = labelled.splits["train"]
    assert split.objects is not None
    step = np.linspace(0, len(split.objects) - 1, min(len(split.objects), MOST)).round().astype(np.int64)
    root = os.fsencode(labelled.listing.root)
    paths: list[str] = split.rows["path"].take(step).to_pylist()

    def size(path: str) -> tuple[int, int]:
        return image_sizes.size(Path(os.fsdecode(os.path.join(root, path_bytes(path)))))

    with ThreadPoolExecutor(devices.cpus(), thread_name_prefix="sizes") as threads:
        sizes = np.array(list(threads.map(size, paths)), np.float64)
    objects = split.objects.take(step)
    kept = objects.usable & (sizes.min(axis=1) > 0)[objects.image]
    corners, image = objects.inside[kept], objects.image[kept]
    scaled = sizes[image, ::-1] * (side / sizes[image].max(axis=1, keepdims=True))
    boxes: NDArray[np.float64] = (corners[:, 2:] - corners[:, :2]) * scaled
    return boxes


def _recalls(boxes: Shapes, shapes: Shapes) -> tuple[float, ...]:
    best = anchors.best_overlaps(boxes, shapes)
    return tuple(round(float((best >= at).mean()), 4) for at in AT)
