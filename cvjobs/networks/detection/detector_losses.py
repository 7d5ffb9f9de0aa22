"""Losses of torchvision's detectors in place of their own: focal and weighted classes, boxes by how they overlap.

A Faster R-CNN's parts are taken over by classes of their own that call everything else of torchvision's; a RetinaNet
has the losses of boxes already.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from cvjobs.common.errors import WrongUse
from cvjobs.networks.detection.detection_losses import GAMMA, DetectionLosses

OVERLAPS = {"giou": generalized_box_iou_loss, "diou": distance_box_iou_loss, "ciou": complete_box_iou_loss}
WEIGHT = 10.0  # of an overlap loss beside the class's: few of the boxes that are counted have one to be compared with
BETA = 1 / 9  # of torchvision's smooth L1


def give(detector: nn.Module, losses: DetectionLosses, name: str) -> None:
    """Let a detector learn by other losses than its own; see ``check``."""
    check(detector, losses, name)
    if isinstance(detector, RetinaNet) and losses.boxes != "auto":
        regression: Any = detector.head.regression_head
        regression._loss_type = losses.boxes.replace("-", "_")
    if not isinstance(detector, FasterRCNN) or losses.own:
        return
    heads, rpn = detector.roi_heads, detector.rpn
    if losses.boxes in OVERLAPS:
        coders = {part: PairCoder(part.box_coder.weights, part.box_coder.bbox_xform_clip) for part in (heads, rpn)}
        detector.rpn = _taken_over(rpn, OverlapProposals, box_coder=coders[rpn], overlap=losses.boxes)
        heads = _taken_over(heads, LossHeads, box_coder=coders[heads])
    made: Any = _taken_over(heads, LossHeads, overlap=losses.boxes, gamma=losses.gamma)
    made.register_buffer("class_weights", losses.weights_tensor, persistent=False)
    detector.roi_heads = made


def check(detector: nn.Module, losses: DetectionLosses, name: str) -> None:
    """Raise WrongUse where a detector, whose name is said, cannot learn by these losses."""
    two_stages = isinstance(detector, FasterRCNN)
    focal_by_itself = isinstance(detector, (RetinaNet, FCOS))
    known: tuple[str, ...] = ("ce", "focal") if two_stages else ("focal",) if focal_by_itself else ("ce",)
    if losses.classes not in ("auto", *known):
        raise WrongUse(f"--loss {losses.classes} is none of {name}: choose {' or '.join(known)}, or leave it out.")
    known = ("smooth-l1", *OVERLAPS)
    if not isinstance(detector, (FasterRCNN, RetinaNet)):
        known = ("giou",) if isinstance(detector, FCOS) else ("smooth-l1",)
    if losses.boxes not in ("auto", *known):
        raise WrongUse(f"--box-loss {losses.boxes} is none of {name}: choose {' or '.join(known)}, or leave it out.")
    if losses.weights and not two_stages:
        raise WrongUse(f"--class-weights are for the head of a Faster R-CNN, which {name} has not: leave it out.")
    if losses.focal_gamma != GAMMA and not (two_stages and losses.classes == "focal"):
        raise WrongUse(f"--focal-gamma is for --loss focal of a Faster R-CNN, not of {name}: leave it out.")


def _taken_over(part: nn.Module, kind: type[nn.Module], **more: Any) -> Any:
    """Return a module of a kind that has all that another one has, and more."""
    made = kind.__new__(kind)
    made.__dict__.update({**part.__dict__, **more})
    return made


class PairCoder(BoxCoder):  # type: ignore[misc]
    """Decodes as torchvision's; encodes a box as itself with what it is told from, (n, 8) pixels: nothing is lost."""

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        """Return the boxes and their proposals, side by side."""
        return torch.cat([reference_boxes, proposals.to(reference_boxes.dtype)], 1)


def overlap_loss(kind: str, coder: BoxCoder, deltas: Tensor, pairs: Tensor) -> Tensor:
    """Return the sum of the losses of predicted boxes, float32.

    Args:
        kind: one of ``OVERLAPS``.
        coder: what decodes.
        deltas: as predicted, (n, 4).
        pairs: as a ``PairCoder`` encodes, (n, 8).
    """
    pairs = pairs.float()
    decoded = coder.decode_single(deltas.float(), pairs[:, 4:])
    summed: Tensor = OVERLAPS[kind](decoded, pairs[:, :4], reduction="sum")
    return WEIGHT * summed


class OverlapProposals(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's proposals, whose boxes are compared by how they overlap (``overlap`` of ``OVERLAPS``)."""

    overlap: str
    box_coder: BoxCoder

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of objectness and of boxes; the targets are pairs of a ``PairCoder``."""
        positive, negative = self.fg_bg_sampler(labels)
        positive, negative = (torch.where(torch.cat(some))[0] for some in (positive, negative))
        sampled = torch.cat([positive, negative])
        pairs = torch.cat(regression_targets)[positive]
        boxes = overlap_loss(self.overlap, self.box_coder, pred_bbox_deltas[positive], pairs) / sampled.numel()
        truth = torch.cat(labels)[sampled]
        return F.binary_cross_entropy_with_logits(objectness.flatten()[sampled], truth), boxes


class LossHeads(RoIHeads):  # type: ignore[misc]
    """torchvision's heads of boxes, with other losses where they learn.

    ``overlap`` is how boxes are compared, ``gamma`` the focal loss's, 0 for cross-entropy, and ``class_weights`` those
    of the background and the classes, (C + 1,), or None.
    """

    overlap: str
    gamma: float
    class_weights: Tensor | None

    def forward(self, features: Any, proposals: Any, image_shapes: Any, targets: Any = None) -> Any:
        """See ``RoIHeads``."""
        if not self.training:
            return super().forward(features, proposals, image_shapes, targets)
        proposals, _, labels, regression_targets = self.select_training_samples(proposals, targets)
        pooled = self.box_head(self.box_roi_pool(features, proposals, image_shapes))
        logits, deltas = self.box_predictor(pooled)
        classes = torch.cat(labels)
        boxes = self._boxes(deltas.view(len(classes), -1, 4), classes, torch.cat(regression_targets))
        return [], {"loss_classifier": self._classes(logits, classes), "loss_box_reg": boxes}

    def _classes(self, logits: Tensor, classes: Tensor) -> Tensor:
        each = F.cross_entropy(logits.float(), classes, reduction="none")
        if self.gamma:
            each = (1 - (-each).exp()).clamp(min=1e-6) ** self.gamma * each
        return (each if self.class_weights is None else each * self.class_weights[classes]).mean()

    def _boxes(self, deltas: Tensor, classes: Tensor, truth: Tensor) -> Tensor:
        some = torch.where(classes > 0)[0]
        own = deltas[some, classes[some]]
        if self.overlap in OVERLAPS:
            return overlap_loss(self.overlap, self.box_coder, own, truth[some]) / classes.numel()
        return F.smooth_l1_loss(own, truth[some], beta=BETA, reduction="sum") / classes.numel()
