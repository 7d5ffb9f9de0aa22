"""torchvision's detectors to be trained, with a new head and perhaps another backbone, and as what they then are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse, nearest
from cvjobs.images.transform import Transform
from cvjobs.networks import weights as files
from cvjobs.networks.detection import detector_losses
from cvjobs.networks.detection.detection_losses import DetectionLosses
from cvjobs.networks.detection.detector import Detector
from cvjobs.networks.detection.detector_anchors import DetectorAnchors
from cvjobs.networks.detection.framing import CanvasFraming, TorchvisionFraming
from cvjobs.networks.detection.settings import Rules
from cvjobs.networks.detection.trainee import DetectionTrainee
from cvjobs.networks.torchvision import anchor_shapes, detectors, loading, mask_heads
from cvjobs.networks.torchvision.pyramids import STRIDES, WIDTH, PyramidBackbone
from cvjobs.networks.trainable import Trainable
from cvjobs.networks.weights import Weights

SIDE = 640  # pixels, of a detector that takes images of any size
ON_ANY = ("fasterrcnn", "retinanet")  # whose heads go on any backbone
BOXES, PROPOSALS = 128, 300  # of an image in training, and in evaluation, on another backbone
# Two sizes of anchors a level, half an octave apart: objects of a small picture are small.
_SIZES = tuple((3 * stride, round(3 * stride * 2**0.5)) for stride in (*STRIDES, 2 * STRIDES[-1]))
_RATIOS = ((0.5, 1.0, 2.0),) * len(_SIZES)


def names() -> list[str]:
    """Return the names of the detectors of boxes that can be trained."""
    return [name for name in detectors.names() if not name.startswith("maskrcnn")]


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
    """Return a detector with a new head for the classes ``labels``, in a ``DetectionTrainee``.

    What begins with the file of another one whose classes have the same names keeps its head.

    Args:
        name: of torchvision's detector.
        weights: ``pretrained``, ``random`` or a file of the whole detector; with a ``backbone`` only a run's folder is.
        labels: the names of the classes.
        side: of the square images it is trained on, in pixels; None for 640, or what an SSD is made for.
        seed: of the weights that are random.
        backbone: the classifier below the head of ``name``, None for its own.
        anchors: those that it has, None for its own. A head in ``weights`` for another number of them begins anew.

    Raises:
        WrongUse: there is no such detector, its head goes on no other backbone, or its images cannot be so small.
    """
    _known(name)
    return made(name, weights, labels, side, seed, backbone, anchors=anchors)


def made(
    name: str,
    weights: str,
    labels: Sequence[str],
    side: int | None,
    seed: int,
    backbone: Trainable | None,
    *,
    anchors: DetectorAnchors | None = None,
) -> Trainable:
    """Return what ``trainable`` does, of a Mask R-CNN too; the name is one of torchvision's."""
    full = f"torchvision/{name}"
    with files.seeded(seed):
        module: Any = loading.built(name, len(labels) + 1) if backbone is None else _on(name, len(labels), backbone)
    if anchors is not None:
        anchor_shapes.give(module, anchors)
    whole = backbone is None or files.is_run(weights)
    given = anchors is not None
    chosen = backbone.weights if backbone is not None and not whole else _loaded(name, module, weights, labels, given)
    transform = module.transform
    own = min(transform.fixed_size) if transform.fixed_size else SIDE
    side = side or own
    if isinstance(module, SSD) and side != own:
        _check_side(full, module, side)
    return Trainable(
        name=full,
        transform=Transform(
            size=(side, side),
            resize=side,
            fit="native",
            mean=tuple(transform.image_mean),
            std=tuple(transform.image_std),
        ),
        weights=chosen,
        module=DetectionTrainee(module, frozen_norms=chosen.file is not None),
        pooled=_no_vectors,
    )


def anchors(name: str, *, on_backbone: bool) -> DetectorAnchors:
    """Return the anchors that a detector has by itself, by its name, with its own backbone or another one.

    Raises:
        WrongUse: it has none, or there is no such detector.
    """
    full = _known(name)
    if on_backbone and name.startswith("fasterrcnn"):
        return DetectorAnchors(sizes=_SIZES, aspect_ratios=_RATIOS)
    with torch.device("meta"):
        return anchor_shapes.own(loading.built(name, 2), full)


def check_losses(full: str, losses: DetectionLosses) -> None:
    """Raise WrongUse where the detector of that full name cannot learn by these losses."""
    with torch.device("meta"):
        detector_losses.check(loading.built(full.partition("/")[2], 2), losses, full)


def detector(trained: Trainable, labels: Sequence[str], weights: Weights, *, masks: bool = False) -> Detector:
    """Return a detector that was trained: it looks at pictures as it did in training, with the longer side as there.

    Its boxes, scores and thresholds are those of torchvision. With ``masks`` a Mask R-CNN finds these, too.
    """
    module: Any = trained.module.detector
    transform = trained.transform
    assert transform.size is not None
    side = transform.size[0]
    heads = getattr(module, "roi_heads", module)
    return Detector(
        name=trained.name,
        weights=weights,
        transform=Transform(fit="native", mean=transform.mean, std=transform.std),
        categories=[Category(number, label) for number, label in enumerate(labels, 1)],
        rules=Rules(
            conf=heads.score_thresh,
            iou=heads.nms_thresh,
            max_det=heads.detections_per_img,
            short=side,
            long=side,
        ),
        module=module.eval(),
        architecture=detectors.architecture(module),
        framing=CanvasFraming() if isinstance(module, SSD) else TorchvisionFraming(),
        masks="box" if masks else "",
    )


def _no_vectors(module: nn.Module) -> nn.Module:
    del module
    raise WrongUse("A detector makes no vectors: give it to `cvjobs detect`.")


def _on(name: str, classes: int, backbone: Trainable) -> nn.Module:
    """Return the heads of a detector on a feature pyramid of a classifier, all but that with random weights."""
    kind = name.partition("_")[0]
    if kind == "maskrcnn":
        return mask_heads.added(_on(name.replace(kind, "fasterrcnn", 1), classes, backbone), classes)
    mean, std = list(backbone.transform.mean), list(backbone.transform.std)
    if kind not in ON_ANY:
        raise WrongUse(
            f"The head of torchvision/{name} goes on no other --backbone: choose fasterrcnn_resnet50_fpn or "
            "retinanet_resnet50_fpn as --model, or leave out --backbone."
        )
    if kind == "retinanet":
        pyramid = PyramidBackbone(backbone.module, backbone.name, LastLevelP6P7(WIDTH, WIDTH))
        retina: nn.Module = RetinaNet(pyramid, classes + 1, image_mean=mean, image_std=std)
        return retina.eval()
    levels = [str(level) for level in range(len(STRIDES))]
    faster: nn.Module = FasterRCNN(
        PyramidBackbone(backbone.module, backbone.name),
        classes + 1,
        image_mean=mean,
        image_std=std,
        rpn_anchor_generator=AnchorGenerator(_SIZES, _RATIOS),
        box_roi_pool=MultiScaleRoIAlign(levels, output_size=7, sampling_ratio=2),
        # A box is a thousand times the work of a place in a map: few of them suit small backbones.
        box_batch_size_per_image=BOXES,
        rpn_post_nms_top_n_test=PROPOSALS,
    )
    return faster.eval()


def _known(name: str) -> str:
    """Return the full name of a detector of boxes; raises WrongUse where there is none that can be trained."""
    full = f"torchvision/{name}"
    if name not in names():
        raise WrongUse(
            f"There is no model {full} whose boxes can be trained{nearest(name, names())}: choose one of "
            f"{', '.join(names())}."
        )
    return full


def _loaded(name: str, module: nn.Module, weights: str, labels: Sequence[str], anchors_given: bool) -> Weights:
    """Let a detector begin with weights, all but the layers that have an output for each class.

    Where other anchors were given to it, its layers that have outputs for another number of anchors begin anew, too.
    """
    full = f"torchvision/{name}"
    entry = models.get_model_weights(name).DEFAULT
    chosen = loading.chosen(full, entry, weights)
    if chosen.file is None:
        return chosen
    own = module.state_dict()
    same = files.head(chosen).labels == tuple(labels)
    tensors, chosen = files.of_model(chosen, lambda: list(own))
    tensors = {key.removeprefix("detector."): tensor for key, tensor in tensors.items()}
    head = set() if same else _of_classes(name, len(labels) + 1)
    given = {key: tensor for key, tensor in tensors.items() if key not in head}
    if anchors_given:
        given = anchor_shapes.fitting(given, own)
        head |= tensors.keys() & own.keys() - given.keys()
    files.fitted(lambda: module.load_state_dict({**{key: own[key] for key in head}, **given}), full, chosen, tensors)
    detectors.correct_norms(name, module, chosen, entry)
    return chosen


def _of_classes(name: str, classes: int) -> set[str]:
    """Return the names of the tensors whose shape depends on the number of classes."""
    with torch.device("meta"):
        fewer, more = (loading.built(name, count).state_dict() for count in (classes, classes + 1))
    return {key for key, tensor in fewer.items() if tensor.shape != more[key].shape}


def _check_side(full: str, module: nn.Module, side: int) -> None:
    """Raise WrongUse where images of a side leave nothing of the smallest maps of an SSD."""
    features: dict[str, Tensor] = {}
    try:
        with torch.inference_mode():
            features = module.backbone(torch.zeros(1, 3, side, side))  # type: ignore[operator]
    except RuntimeError:
        features = {}
    if not features:
        raise WrongUse(f"{full} takes no images as small as {side} pixels: raise --img-size.") from None
