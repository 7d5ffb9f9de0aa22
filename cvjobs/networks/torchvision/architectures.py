"""From images to candidate boxes, by torchvision's own backbones, region proposals and heads: two stages, one, SSD.

What torchvision does for one image at a time in Python is done for a batch here. Boxes and scores are float32 whatever
the precision of the network.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import remove_small_boxes

from cvjobs.networks.detection.nms import Candidates, best_of_groups

Sizes = list[tuple[int, int]]
Features = dict[str, Tensor]

MASKS = 128  # boxes whose masks are computed at once: 200 MB in float32
SMALLEST = 1e-2


class _Placed:
    """A module on a device, in the type of its weights."""

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module
        weight = next(module.parameters())
        self.device, self.dtype = weight.device, weight.dtype


class TwoStages(_Placed):
    """Faster and Mask R-CNN: region proposals, then a class and a box for each."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self._heads: Any = module.roi_heads
        self._prepare()

    def _prepare(self) -> None:
        """Let the pools learn the strides of the feature maps from a regular image.

        They keep what they see first, and a tiny or very long image, mostly padding, would teach them wrong strides.
        """
        weight = next(self.module.backbone.parameters())
        side = 256
        with torch.inference_mode():
            features = self.module.backbone(weight.new_zeros(1, 3, side, side))
            box = [torch.tensor([[0.0, 0.0, side, side]], device=weight.device)]
            for pool in filter(None, (self._heads.box_roi_pool, self._heads.mask_roi_pool)):
                pool(_floats(features), box, [(side, side)])

    def candidates(self, images: Tensor, sizes: Sizes, conf: float) -> tuple[Candidates, Features]:
        """See ``Architecture``."""
        features = self.module.backbone(images)
        proposals, finite = self._proposals(images, features, sizes)
        pooled = self._heads.box_roi_pool(_floats(features), proposals, sizes).to(images.dtype)
        logits, deltas = self._heads.box_predictor(self._heads.box_head(pooled))
        logits, deltas = logits.float(), deltas.float().view(*logits.shape, 4)
        counts = torch.tensor([len(boxes) for boxes in proposals], device=images.device)
        image = torch.arange(len(images), device=images.device).repeat_interleave(counts)
        spoilt = ~(logits.isfinite().all(1) & deltas.isfinite().flatten(1).all(1))
        finite = finite.index_fill(0, image[spoilt], False)
        scores = logits.softmax(-1)
        row, label = torch.where(scores[:, 1:] > conf)
        label += 1
        boxes = self._heads.box_coder.decode_single(deltas[row, label], torch.cat(proposals)[row])
        found = Candidates(image[row], _clipped(boxes, image[row], sizes), scores[row, label], label, finite)
        return found.only(remove_small_boxes(found.boxes, SMALLEST)), features

    def _proposals(self, images: Tensor, features: Features, sizes: Sizes) -> tuple[list[Tensor], Tensor]:
        """Return the regions to look at, for each image, and whether the network's output for it is finite."""
        rpn = self.module.rpn
        objectness, deltas = rpn.head(list(features.values()))
        counts = [level[0].numel() for level in objectness]
        anchors = _anchors(rpn.anchor_generator, images, features)
        objectness, deltas = concat_box_prediction_layers(objectness, deltas)
        objectness, deltas = objectness.float(), deltas.float()
        finite = _finite(objectness.view(len(images), -1)) & _finite(deltas.view(len(images), -1))
        boxes = rpn.box_coder.decode(deltas, [anchors] * len(images)).view(len(images), -1, 4)
        proposals, _ = rpn.filter_proposals(boxes, objectness, sizes, counts)
        return proposals, finite

    def masks(self, features: Features, found: list[Candidates], sizes: Sizes) -> Tensor:
        """See ``Architecture``."""
        weight = next(self.module.backbone.parameters())
        boxes = [some.boxes for some in found]
        labels = torch.cat([some.labels for some in found])
        pooled = self._heads.mask_roi_pool(_floats(features), boxes, sizes).to(weight.dtype)
        pieces = []
        for some, classes in zip(torch.split(pooled, MASKS), torch.split(labels, MASKS), strict=True):
            logits = self._heads.mask_predictor(self._heads.mask_head(some))
            pieces.append(logits[torch.arange(len(some), device=logits.device), classes].float().sigmoid())
        return torch.cat(pieces)


class OneStage(_Placed):
    """RetinaNet and FCOS: a score for every class at every anchor, the best of each level taken on."""

    def candidates(self, images: Tensor, sizes: Sizes, conf: float) -> tuple[Candidates, Features]:
        """See ``Architecture``."""
        model = self.module
        features = model.backbone(images)
        heads = {name: output.float() for name, output in model.head(list(features.values())).items()}
        logits, deltas = heads["cls_logits"], heads["bbox_regression"]
        # The sigmoid of all logits would take longer than what follows: those that cannot reach ``conf`` go first.
        least = conf**2 if isinstance(model, FCOS) else conf
        floor = math.log(least / (1 - least)) - 1e-3 if 0 < least < 1 else -math.inf
        image, anchor, label = torch.where(logits > floor)
        scores = logits[image, anchor, label].sigmoid()
        if isinstance(model, FCOS):
            scores = (scores * heads["bbox_ctrness"][image, anchor, 0].sigmoid()).sqrt()
        above = torch.where(scores > conf)[0]
        image, anchor, label, scores = image[above], anchor[above], label[above], scores[above]
        counts = self._anchors_per_level(features, logits.shape[1])
        ends = torch.tensor(counts, device=images.device).cumsum(0)
        groups = image * len(counts) + torch.searchsorted(ends, anchor, right=True)
        best = best_of_groups(scores, groups, model.topk_candidates)
        image, anchor = image[best], anchor[best]
        anchors = _anchors(model.anchor_generator, images, features)[anchor]
        decode = model.box_coder.decode if isinstance(model, FCOS) else model.box_coder.decode_single
        boxes = _clipped(decode(deltas[image, anchor], anchors), image, sizes)
        finite = torch.stack([_finite(output.flatten(1)) for output in heads.values()]).all(0)
        return Candidates(image, boxes, scores[best], label[best], finite), features

    def _anchors_per_level(self, features: Features, total: int) -> list[int]:
        places = [level.shape[2] * level.shape[3] for level in features.values()]
        return [count * (total // sum(places)) for count in places]

    def masks(self, features: Features, found: list[Candidates], sizes: Sizes) -> Tensor:
        """See ``Architecture``."""
        raise NotImplementedError("a detector of one stage has no masks")


class Ssd(OneStage):
    """SSD and SSDlite: as one stage, but a softmax over the classes, the best of each class taken on."""

    def candidates(self, images: Tensor, sizes: Sizes, conf: float) -> tuple[Candidates, Features]:
        """See ``Architecture``."""
        model = self.module
        features = model.backbone(images)
        heads = {name: output.float() for name, output in model.head(list(features.values())).items()}
        probabilities = heads["cls_logits"].softmax(-1)
        # Few anchors see anything: only in those is a class looked for.
        image, anchor = torch.where(probabilities[..., 1:].amax(-1) > conf)
        seen = probabilities[image, anchor, 1:]
        row, label = torch.where(seen > conf)
        image, anchor, scores = image[row], anchor[row], seen[row, label]
        label += 1
        best = best_of_groups(scores, image * probabilities.shape[-1] + label, model.topk_candidates)
        image, anchor = image[best], anchor[best]
        anchors = _anchors(model.anchor_generator, images, features)[anchor]
        boxes = model.box_coder.decode_single(heads["bbox_regression"][image, anchor], anchors)
        finite = torch.stack([_finite(output.flatten(1)) for output in heads.values()]).all(0)
        return Candidates(image, _clipped(boxes, image, sizes), scores[best], label[best], finite), features


def _floats(features: Features) -> Features:
    """Return feature maps in float32: regions are pooled in no other type everywhere."""
    return {name: level.float() for name, level in features.items()}


def _anchors(generator: nn.Module, images: Tensor, features: Features) -> Tensor:
    """Return the anchors (N, 4) of images of one size, in float32: in half precision they would be off by pixels."""
    scalar = torch.empty(1, device=images.device)
    shapes = [scalar.expand(level.shape) for level in features.values()]
    anchors: Tensor = generator(ImageList(images, [(0, 0)]), shapes)[0]
    return anchors


def _clipped(boxes: Tensor, image: Tensor, sizes: Sizes) -> Tensor:
    """Return boxes cut off at the edges of their images."""
    limits = torch.tensor([(width, height, width, height) for height, width in sizes], device=boxes.device)
    return boxes.clamp(min=0).minimum(limits[image])


def _finite(outputs: Tensor) -> Tensor:
    """Return for each row whether it has neither NaN nor infinity; both pass through a least and a greatest."""
    if not outputs.shape[1]:
        return outputs.new_ones(len(outputs), dtype=torch.bool)
    return torch.stack(outputs.aminmax(dim=1)).isfinite().all(0)
