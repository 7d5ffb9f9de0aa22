"""Detectors of transformers that guess a set of boxes: RT-DETR, D-FINE, RF-DETR, LW-DETR, DETR and YOLOS.

Boxes, scores and classes are those of the model's own processor, which are not cut off at the edges of the image, and
so are the masks of RF-DETR-Seg.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.networks import class_names, cpu_pieces
from cvjobs.networks.detection.detector import Detector
from cvjobs.networks.detection.nms import Candidates
from cvjobs.networks.detection.settings import Rules, Settings
from cvjobs.networks.hf import detector_framing, folding, loading
from cvjobs.networks.hf.image_processor import image_processor
from cvjobs.networks.hf.repository import Repository

KINDS = {
    "d_fine": "DFineForObjectDetection",
    "detr": "DetrForObjectDetection",
    "lw_detr": "LwDetrForObjectDetection",
    "rf_detr": "RfDetrForObjectDetection",
    "rt_detr": "RTDetrForObjectDetection",
    "rt_detr_v2": "RTDetrV2ForObjectDetection",
    "yolos": "YolosForObjectDetection",
}
WITH_MASKS = {"rf_detr": "RfDetrForInstanceSegmentation"}
CONF = 0.5  # of transformers' pipelines and processors
MERGING = 0.5  # the IoU from which on two looks at an image saw the same object
STRIDE = 32  # of the coarsest feature map of those that take other sizes than their own
_ANY_SIZE = ("d_fine", "rt_detr", "rt_detr_v2")
_WINDOWS = ("lw_detr", "rf_detr")
# How many guesses a processor goes on with, the best pairs of a box and a class; None takes the best class of each box,
# of which the last says that there is none, and 0 as many pairs as the model has boxes.
_BEST = {
    "DeformableDetrImageProcessor": 100,
    "DetrImageProcessor": None,
    "RfDetrImageProcessor": 0,
    "RTDetrImageProcessor": 0,
    "YolosImageProcessor": None,
}
_HEADS = ("bbox_embed", "bbox_predictor", "class_embed", "class_labels_classifier")
_NO_CLASS = "N/A"
_OUTPUTS = ("logits", "pred_boxes", "pred_masks")


@dataclass(frozen=True, kw_only=True)
class SetDetector(Detector):
    """A detector that chooses so many ``guesses`` among the places of its feature maps, which have those ``strides``.

    Without strides it makes its guesses at every size. Files ``beside`` that of the weights may change results, too.
    """

    best: int | None
    guesses: int = 0
    strides: tuple[int, ...] = ()
    beside: tuple[str, ...] = ()

    def ruled(self, settings: Settings) -> Self:
        """See ``Detector``; raises WrongUse for a size at which there are too few places as well."""
        found = super().ruled(settings)
        height, width = found.framing.size(1, 1, found.rules, min(found.rules.scales))
        places = sum((height // stride) * (width // stride) for stride in self.strides)
        if self.strides and places < self.guesses:
            raise WrongUse(
                f"{self.name} makes {self.guesses} guesses, and at {height} × {width} pixels there are {places} places "
                "for them: give a larger --imgsz, or leave the smaller scales out of --tta."
            )
        return found

    def placed(self, device: str, dtype: torch.dtype) -> Guesses:
        """See ``Detector``; the weights stay float32."""
        module = copy.deepcopy(self.module)
        folding.fold(module)
        return Guesses(module.to(device, memory_format=torch.channels_last), self.best, dtype)  # type: ignore[call-overload]


def detector(repository: Repository, weights: str, labels: Sequence[str], masks: bool = False) -> SetDetector:
    """Return a detector whose categories have the numbers of the model's classes, under the names in ``labels``.

    Without ``labels`` they have their published names. Weights are ``pretrained``, ``random`` or a file. With
    ``masks`` it finds a mask for each object.

    Raises:
        WrongUse: the model is of another kind, its settings or its processor's have no counterpart here, or the weights
            or labels don't fit.
    """
    both = masks or repository.config.get("architectures") == [WITH_MASKS.get(repository.kind)]
    model, chosen = loading.loaded(repository, WITH_MASKS if both else KINDS, weights)
    found = image_processor(repository)
    kind = type(found).__name__
    if kind not in _BEST:
        raise WrongUse(
            f"The image processor of {repository.name}, {kind}, is of no detector that `cvjobs detect` knows: choose "
            "another model."
        )
    flexible = repository.kind in _ANY_SIZE and not (model.config.anchor_image_size or model.config.eval_size)
    framing, (short, long) = detector_framing.framing(repository, found, STRIDE if flexible else 1)
    squashed = framing.form == detector_framing.BOTH
    if repository.kind in _WINDOWS and not squashed:
        raise WrongUse(f"{repository.name} takes images of one size only, and its processor has none: choose another.")
    boxes = model.config.num_detection_tokens if repository.kind == "yolos" else model.config.num_queries
    return SetDetector(
        name=repository.name,
        weights=chosen,
        transform=detector_framing.transform(repository, found),
        categories=_categories(model, labels, repository.name),
        rules=Rules(
            conf=CONF, iou=1.0, max_det=_BEST[kind] or boxes, short=short, long=long, fixed=squashed and not flexible
        ),
        module=model,
        architecture=partial(Guesses, best=_BEST[kind]),
        best=_BEST[kind],
        masks="image" if masks else "",
        framing=framing,
        folded="",
        merging=MERGING,
        also={"settings_sha256": repository.digest},
        beside=repository.beside,
        guesses=boxes,
        strides=tuple(model.config.feat_strides) if flexible else (),
    )


def _categories(model: Any, labels: Sequence[str], name: str) -> list[Category]:
    if not labels:
        return loading.distinct([one for one in loading.categories(model) if one.name != _NO_CLASS])
    return [
        Category(number, label)
        for number, label in enumerate(class_names.for_head(model.config.num_labels, labels, (), name))
    ]


class Guesses:
    """A model of transformers on a device: a fixed number of boxes, each with a score for every class.

    Its weights are float32. Convolutions and products are computed in ``dtype``, what places boxes is not: in half
    precision they would be off by pixels.
    """

    def __init__(self, module: nn.Module, best: int | None, dtype: torch.dtype = torch.float32) -> None:
        self.module: Any = module
        weight = next(module.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self._best = best
        half = dtype != self.dtype
        self._precision = partial(torch.autocast, self.device.type, dtype) if half else nullcontext
        if half:
            _keep_heads(module)

    def candidates(
        self, images: Tensor, sizes: list[tuple[int, int]], conf: float
    ) -> tuple[Candidates, dict[str, Tensor]]:
        """See ``Architecture``; the masks, where there are any, are all that is handed on."""
        outputs = self._outputs(images, _padding(images, sizes))
        logits, relative = outputs["logits"], outputs["pred_boxes"]
        finite = logits.isfinite().flatten(1).all(1) & relative.isfinite().flatten(1).all(1)
        scores, labels, queries = self._scored(logits)
        image, place = torch.where(scores > conf)
        query = queries[image, place]
        scale = relative.new_tensor([(width, height) for height, width in sizes])[image]
        centre, half = relative[image, query].view(-1, 2, 2).unbind(1)
        half = half / 2
        boxes = torch.cat([(centre - half) * scale, (centre + half) * scale], 1)
        found = Candidates(image, boxes, scores[image, place], labels[image, place], finite, query=query)
        masks = outputs.get("pred_masks")
        if masks is None:
            return found, {}
        empty = masks[image, query].flatten(1).amax(1) <= 0  # not NaN, which is found out later
        return found.only(~empty), {"masks": masks}

    def _outputs(self, images: Tensor, padding: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what the model says of images: logits (B, Q, C), boxes (B, Q, 4) and perhaps masks (B, Q, h, w)."""
        step = cpu_pieces.step(len(images), *images.shape[2:]) if self.device.type == "cpu" else len(images)
        pieces = []
        for start in range(0, len(images), step):
            some = slice(start, start + step)
            with self._precision():
                found = self.module(pixel_values=images[some], **{name: mask[some] for name, mask in padding.items()})
            pieces.append({name: found[name].float() for name in _OUTPUTS if found.get(name) is not None})
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def _scored(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return of each guess of (B, Q, C) logits, best first or in order, the score, the class and the box."""
        count, classes = logits.shape[1:]
        if self._best is None:
            scores, labels = logits.softmax(-1)[..., :-1].max(-1)
            return scores, labels, torch.arange(count, device=logits.device).expand(len(logits), count)
        pairs = logits.sigmoid().flatten(1)
        scores, index = pairs.topk(min(self._best or count, pairs.shape[1]), dim=1)
        return scores, index % classes, index // classes

    def masks(self, features: dict[str, Tensor], found: list[Candidates], sizes: list[tuple[int, int]]) -> Tensor:
        """See ``Architecture``."""
        del sizes
        queries = [some.query for some in found]
        return torch.cat(
            [masks[query] for masks, query in zip(features["masks"], queries, strict=True) if query is not None]
        ).float()


class _Exact(nn.Module):
    """A head in float32, whatever the precision around it."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            numbers: Tensor = self.head(features.float())
            return numbers


def _keep_heads(module: nn.Module) -> None:
    """Let the heads of a module compute in float32."""
    for name, part in list(module.named_modules()):
        holder, _, last = name.rpartition(".")
        if last not in _HEADS:
            continue
        if isinstance(part, nn.ModuleList):
            for i, head in enumerate(part):
                part[i] = _Exact(head)
        else:
            setattr(module.get_submodule(holder), last, _Exact(part))


def _padding(images: Tensor, sizes: list[tuple[int, int]]) -> dict[str, Tensor]:
    """Return what tells a model of the padding, if there is any."""
    canvas = (images.shape[2], images.shape[3])
    if all(size == canvas for size in sizes):
        return {}
    mask = torch.zeros(len(images), *canvas, dtype=torch.int64, device=images.device)
    for one, (height, width) in zip(mask, sizes, strict=True):
        one[:height, :width] = 1
    return {"pixel_mask": mask}
