"""A torchvision detector as a network to train: images and the boxes in them go in, the parts of its loss come out.

The losses, the matched anchors and the sampling are torchvision's own, where no other losses are asked for: its modules
are called, none is written anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from cvjobs.networks.detection import detector_losses
from cvjobs.networks.detection.detection_losses import DetectionLosses

_LEARNING = (FasterRCNN, RetinaNet, FCOS, SSD, RegionProposalNetwork, RoIHeads)  # what does other things in training


class PlacedTransform(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Takes images as they are: of their final size, with the mean and the deviation applied."""

    def __init__(self, like: GeneralizedRCNNTransform) -> None:
        super().__init__(
            min_size=like.min_size,
            max_size=like.max_size,
            image_mean=like.image_mean,
            image_std=like.image_std,
            size_divisible=like.size_divisible,
            fixed_size=like.fixed_size,
        )

    def forward(self, images: Any, targets: Any = None) -> tuple[ImageList, Any]:
        """Return a batch (N, 3, H, W) and its targets as a detector takes them."""
        return ImageList(images, [(images.shape[-2], images.shape[-1])] * len(images)), targets


class DetectionTrainee(nn.Module):
    """A detector in training; ``parts`` are the names of those of its loss.

    With ``frozen_norms`` the batch norms of its backbone stay as they are, as torchvision has it for weights that are
    trained already: the few images of a step say too little of them.
    """

    def __init__(self, detector: nn.Module, *, frozen_norms: bool) -> None:
        super().__init__()
        self.detector: Any = detector
        self.detector.transform = PlacedTransform(self.detector.transform)
        self._frozen = frozen_norms
        self.parts = _parts(detector)
        self.any_size = not isinstance(detector, SSD)  # whose boxes are shares of a square
        for norm in self._norms():
            for parameter in norm.parameters():
                parameter.requires_grad = False

    def learn_by(self, losses: DetectionLosses, name: str) -> None:
        """Learn by other losses than torchvision's; raises WrongUse where the detector, called ``name``, cannot."""
        detector_losses.give(self.detector, losses, name)

    def _norms(self) -> Iterator[nn.Module]:
        if self._frozen:
            yield from (part for part in self.detector.backbone.modules() if isinstance(part, nn.BatchNorm2d))

    def train(self, mode: bool = True) -> DetectionTrainee:
        """See ``nn.Module``."""
        super().train(mode)
        for norm in self._norms():
            norm.eval()
        return self

    def forward(self, images: Tensor, boxes: Tensor, labels: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return the parts of the loss, each a mean over the images, float32 (parts,).

        Args:
            images: normalised (N, 3, H, W).
            boxes: x0, y0, x1, y1 in their pixels, float32 (N, M, 4).
            labels: the classes of the boxes, from 0, and -1 where there is no box, int64 (N, M).
            masks: for a Mask R-CNN those of the boxes that there are, image by image, uint8 (K, H, W) of 0 and 1.
        """
        there = labels >= 0
        targets = [
            {"boxes": own[some], "labels": classes[some] + 1}
            for own, classes, some in zip(boxes, labels, there, strict=True)
        ]
        if masks is not None:
            for target, own in zip(targets, torch.split(masks, there.sum(1).tolist()), strict=True):
                target["masks"] = own
        with learning(self.detector):
            losses = self.detector(images, targets)
        return torch.stack([loss.float() for loss in losses.values()])


def _parts(detector: nn.Module) -> Sequence[str]:
    """Return the names of the parts of a detector's loss, in the order in which torchvision returns them."""
    if isinstance(detector, FasterRCNN):
        own = ("class", "box", "mask") if detector.roi_heads.has_mask() else ("class", "box")
        return *own, "objectness", "proposal"
    if isinstance(detector, FCOS):
        return "class", "box", "centre"
    return ("box", "class") if isinstance(detector, SSD) else ("class", "box")


@contextmanager
def learning(detector: nn.Module) -> Iterator[None]:
    """Let a detector compute its losses, also where its layers are in evaluation mode."""
    before = [(part, part.training) for part in detector.modules() if isinstance(part, _LEARNING)]
    try:
        for part, _ in before:
            part.training = True
        yield
    finally:
        for part, mode in before:
            part.training = mode
