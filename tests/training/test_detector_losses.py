"""Losses of detectors and segmenters by option: by hand, from what torchvision itself compares."""

from __future__ import annotations

import copy
import math
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from block_pictures import CLASSES
from torch import Tensor
from torchvision.models.detection import roi_heads
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from cvjobs.common.errors import WrongUse
from cvjobs.networks import detector_training
from cvjobs.networks.detection import detector_losses
from cvjobs.networks.detection.detection_losses import DetectionLosses
from cvjobs.networks.detection.detector_losses import WEIGHT, PairCoder
from cvjobs.networks.torchvision import trained_detectors
from cvjobs.training.recipe import pixel_losses
from cvjobs.training.recipe.detection_recipe import detection, losses_of
from cvjobs.training.recipe.padded_crops import VOID
from cvjobs.training.recipe.recipe import Recipe

FASTER = "fasterrcnn_mobilenet_v3_large_320_fpn"
BOXES = torch.tensor([[[10, 10, 70, 60.0], [0, 0, 0, 0]], [[20, 30, 90, 100], [64, 5, 120, 40.0]]])
LABELS = torch.tensor([[0, -1], [1, 0]])


@cache
def begun() -> Any:
    return detector_training.detector(FASTER, weights="random", labels=CLASSES, side=128).module.train()


def learning(losses: DetectionLosses | None) -> Any:
    module = copy.deepcopy(begun())
    if losses is not None:
        module.learn_by(losses, FASTER)
    return module


def parts(module: Any) -> Tensor:
    """Return the parts of the loss: of classes, boxes, objectness and proposals."""
    torch.manual_seed(1)
    found: Tensor = module(torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)), BOXES, LABELS)
    return found


def by_hand(kind: Any, coder: BoxCoder, deltas: Tensor, targets: Tensor, count: int) -> float:
    """Return a loss of boxes told from a unit square, which the loss does not change by."""
    unit = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(deltas), -1)
    one, other = (coder.decode_single(some, unit) for some in (deltas, targets))
    return float(WEIGHT * kind(one, other).sum() / count)


def test_focal_weighted_and_overlap_losses_are_those_of_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchvision compares is taken from its own pass, in which the same proposals are drawn."""
    seen: dict[str, Any] = {}
    plain_loss = roi_heads.fastrcnn_loss

    def heads(*given: Any) -> Any:
        seen["heads"] = given
        return plain_loss(*given)

    monkeypatch.setattr(roi_heads, "fastrcnn_loss", heads)
    plain = learning(None)
    rpn = plain.detector.rpn
    plain_proposals = rpn.compute_loss

    def proposals(*given: Any) -> Any:
        seen["rpn"], seen["state"] = given, torch.get_rng_state()
        return plain_proposals(*given)

    rpn.compute_loss = proposals
    theirs = parts(plain)
    logits, deltas, labels, targets = seen["heads"]
    logits, deltas, theirs = logits.detach(), deltas.detach(), theirs.detach()
    classes, told = torch.cat(labels), torch.cat(targets)
    some = torch.where(classes > 0)[0]
    own = deltas.view(len(classes), -1, 4)[some, classes[some]]
    each = F.cross_entropy(logits, classes, reduction="none")

    equal = parts(learning(DetectionLosses(weights=(1.0, 1.0)))).detach()
    assert equal.tolist() == pytest.approx(theirs.tolist(), abs=1e-6)
    smooth = parts(learning(DetectionLosses(boxes="smooth-l1"))).detach()
    assert smooth.tolist() == pytest.approx(theirs.tolist(), abs=1e-6)

    weights = torch.tensor([1.0, 3.0, 0.5])
    weighted = parts(learning(DetectionLosses(weights=(3.0, 0.5)))).detach()
    assert float(weighted[0]) == pytest.approx(float((weights[classes] * each).mean()), rel=1e-5)
    assert weighted[1:].tolist() == pytest.approx(theirs[1:].tolist(), abs=1e-6)

    module = learning(DetectionLosses(classes="focal", boxes="giou", focal_gamma=1.5))
    assert list(module.state_dict()) == list(plain.state_dict())
    learnt: Any = parts(module)
    found = learnt.detach()
    chance = logits.softmax(1)[torch.arange(len(classes)), classes]
    assert float(found[0]) == pytest.approx(float(((1 - chance) ** 1.5 * -chance.log()).mean()), rel=1e-4)
    expected = by_hand(generalized_box_iou_loss, plain.detector.roi_heads.box_coder, own, told[some], len(classes))
    assert float(found[1]) == pytest.approx(expected, rel=1e-3)
    assert float(found[2]) == pytest.approx(float(theirs[2]), rel=1e-5)
    _, moves, truth, aims = seen["rpn"]
    moves = moves.detach()
    torch.set_rng_state(seen["state"])
    positive, negative = (torch.where(torch.cat(part))[0] for part in rpn.fg_bg_sampler(truth))
    expected = by_hand(
        generalized_box_iou_loss,
        rpn.box_coder,
        moves[positive],
        torch.cat(aims)[positive],
        len(positive) + len(negative),
    )
    assert float(found[3]) == pytest.approx(expected, rel=1e-3)
    learnt.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [("giou", generalized_box_iou_loss), ("diou", distance_box_iou_loss), ("ciou", complete_box_iou_loss)],
)
def test_boxes_are_compared_where_they_are(kind: str, theirs: Any) -> None:
    coder = PairCoder((10.0, 10.0, 5.0, 5.0))
    truth = torch.tensor([[10.0, 10, 30, 50], [40, 40, 80, 60]])
    proposals = torch.tensor([[12.0, 8, 35, 44], [30, 42, 85, 70]])
    deltas = torch.tensor([[0.3, -0.2, 0.5, 0.1], [-1.0, 0.4, 0.2, -0.6]])
    pairs = torch.cat(coder.encode([truth[:1], truth[1:]], [proposals[:1], proposals[1:]]))
    decoded = BoxCoder((10.0, 10.0, 5.0, 5.0)).decode_single(deltas, proposals)
    found = detector_losses.overlap_loss(kind, coder, deltas, pairs)
    assert float(found) == pytest.approx(WEIGHT * float(theirs(decoded, truth).sum()), rel=1e-5)
    assert float(detector_losses.overlap_loss(kind, coder, deltas[:0], pairs[:0])) == 0


def test_each_detector_takes_the_losses_that_it_can_have() -> None:
    for name, losses, said in (
        ("fcos_resnet50_fpn", DetectionLosses(classes="ce"), "--loss ce is none of torchvision/fcos_resnet50_fpn"),
        ("fcos_resnet50_fpn", DetectionLosses(boxes="ciou"), "--box-loss ciou is none of"),
        ("ssd300_vgg16", DetectionLosses(classes="focal"), "--loss focal is none of"),
        ("ssd300_vgg16", DetectionLosses(boxes="giou"), "choose smooth-l1"),
        ("retinanet_resnet50_fpn", DetectionLosses(weights=(1.0,)), "--class-weights are for the head of a Faster"),
        ("retinanet_resnet50_fpn", DetectionLosses(focal_gamma=1.0), "--focal-gamma is for --loss focal of a Faster"),
        (FASTER, DetectionLosses(classes="dice"), "choose ce or focal"),
    ):
        with pytest.raises(WrongUse, match=said):
            trained_detectors.check_losses(f"torchvision/{name}", losses)
    for name, losses in (
        ("fcos_resnet50_fpn", DetectionLosses(classes="focal", boxes="giou")),
        ("ssd300_vgg16", DetectionLosses(classes="ce", boxes="smooth-l1")),
        ("retinanet_resnet50_fpn", DetectionLosses(classes="focal", boxes="diou")),
    ):
        trained_detectors.check_losses(f"torchvision/{name}", losses)


def test_a_recipe_has_the_losses_that_were_asked_for() -> None:
    recipe = detection("detect", loss="focal", focal_gamma=1.0, class_weights="inverse", box_loss="giou", mosaic=0.5)
    found = losses_of(recipe, [30, 10])
    assert (found.classes, found.boxes, found.gamma) == ("focal", "giou", 1.0)
    assert found.weights == pytest.approx((2 / 3, 2.0))
    assert losses_of(detection("detect"), [30, 10]) == DetectionLosses()
    with pytest.raises(WrongUse, match="--cutmix is not for --task detect"):
        detection("detect", cutmix=1.0)


def test_pixels_are_weighted_by_their_classes() -> None:
    weights = pixel_losses.class_weights("inverse", [900, 100, 0], 10)
    assert weights is not None
    assert (weights[:2] * torch.tensor([900, 100])).tolist() == pytest.approx([500, 500])
    logits = torch.tensor([[[[2.0, -1.0, 0.0]], [[0.5, 1.0, 0.0]], [[0.0, 0.0, 0.0]]]])
    targets = torch.tensor([[[0, 1, VOID]]])
    chances = logits[0, :, 0].softmax(0)
    each = [-math.log(float(chances[0, 0])), -math.log(float(chances[1, 1]))]
    expected = (each[0] * float(weights[0]) + each[1] * float(weights[1])) / 2
    assert float(pixel_losses.of_pixels(Recipe(epochs=1), logits, targets, weights)) == pytest.approx(
        expected, rel=1e-5
    )
    focal = [(1 - math.exp(-loss)) ** 2 * loss * float(weight) for loss, weight in zip(each, weights, strict=False)]
    found = pixel_losses.of_pixels(Recipe(epochs=1, loss="focal"), logits, targets, weights)
    assert float(found) == pytest.approx(sum(focal) / 2, rel=1e-5)
    # Of 10 images the classes fill 9 and 1; of the effective numbers the larger one grows less.
    effective = pixel_losses.class_weights("effective", [900, 100], 10)
    assert effective is not None
    numbers = [(1 - 0.999**count) / (1 - 0.999) for count in (9, 1)]
    assert float(effective[1] / effective[0]) == pytest.approx(numbers[0] / numbers[1], rel=1e-4)
    plain = pixel_losses.of_pixels(Recipe(epochs=1), logits, targets)
    assert float(pixel_losses.of_pixels(Recipe(epochs=1), logits, targets, torch.ones(3))) == pytest.approx(
        float(plain)
    )
