"""Segmenters of transformers: a class for every pixel, or the outlines of objects, and of some models either."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from cvjobs.common import categories as common_categories
from cvjobs.common import class_labels
from cvjobs.common.categories import BACKGROUND, Category
from cvjobs.common.errors import WrongUse
from cvjobs.images.transform import Transform
from cvjobs.networks import class_names
from cvjobs.networks.detection import settings as detection
from cvjobs.networks.detection.detector import Detector
from cvjobs.networks.detection.settings import Rules, Settings
from cvjobs.networks.hf import detectors, loading, processing, task_tokens
from cvjobs.networks.hf.processing import ImageProcessing
from cvjobs.networks.hf.repository import Repository
from cvjobs.networks.hf.segmenter_network import HfClassMaps, HfObjects, ObjectChoice
from cvjobs.networks.segmentation.result_kind import Kind
from cvjobs.networks.segmentation.segmenter import without_objects
from cvjobs.networks.weights import Weights

PIXELS = {"dpt": "DPTForSemanticSegmentation", "segformer": "SegformerForSemanticSegmentation"}
QUERIES = {
    "eomt": "EomtForUniversalSegmentation",
    "eomt_dinov3": "EomtDinov3ForUniversalSegmentation",
    "mask2former": "Mask2FormerForUniversalSegmentation",
    "oneformer": "OneFormerForUniversalSegmentation",
}
FIXED = ("eomt", "eomt_dinov3")  # whose inputs have one size
CONF = {"mask2former": 0.5, "oneformer": 0.5, "eomt": 0.8, "eomt_dinov3": 0.8}  # as transformers' own post-processing


@dataclass(frozen=True, kw_only=True)
class HfSegmenter:
    """A segmenter of transformers, on the CPU; its results are of the ``kind`` that is one of its ``kinds``.

    ``architecture`` is what transformers calls it, ``tokens`` what OneFormer is told for each kind, ``conf``,
    ``max_det`` and ``classes`` which objects are kept. Files ``beside`` that of the weights may change results, too.
    """

    name: str
    architecture: str
    weights: Weights
    settings_sha256: str
    categories: list[Category]
    kind: Kind
    kinds: tuple[Kind, ...]
    processing: ImageProcessing
    module: nn.Module = field(repr=False)
    tokens: Mapping[Kind, tuple[int, ...]] = field(default_factory=dict)
    imgsz: int = 0
    choice: ObjectChoice | None = None
    transform: Transform = field(default_factory=lambda: Transform(fit="native"))
    beside: tuple[str, ...] = ()

    @property
    def facts(self) -> Mapping[str, Any]:
        """What identifies its results: the weights, the settings, the classes and what is kept."""
        facts: dict[str, Any] = {"model": self.name, **self.weights.facts, "settings_sha256": self.settings_sha256}
        facts |= common_categories.facts(self.kind, self.categories)
        if self.tokens:
            facts["task_tokens"] = list(self.tokens[self.kind])
        if self.imgsz:
            facts["size"] = dict(sorted(self.processing.size.items()))
        if self.choice:
            facts |= {"conf": self.choice.conf, "max_det": self.choice.max_det, "classes": list(self.choice.classes)}
        return facts

    @property
    def file(self) -> str:
        """Where the weights came from, empty where they are random."""
        return str(self.weights.file or "")

    def of_kind(self, kind: Kind) -> HfSegmenter:
        """Return it with results of one of its kinds."""
        if kind == self.kind:
            return self
        return replace(self, kind=kind, categories=_named(kind, [c.name for c in self.categories]))

    def ruled(self, settings: Settings) -> HfSegmenter:
        """Return the segmenter as a user wants it; raises WrongUse for what it cannot do."""
        if settings.imgsz and self.architecture in FIXED:
            size = " × ".join(map(str, self.processing.size.values()))
            raise WrongUse(
                f"{self.name} takes images of {size} pixels only: leave out --imgsz, or choose another model."
            )
        chosen = self
        if settings.imgsz:
            chosen = replace(self, imgsz=settings.imgsz, processing=self.processing.resized(settings.imgsz))
        if self.kind == "semantic":
            remedy = "give --kind instance" if "instance" in self.kinds else "choose a model of objects with --model"
            without_objects(settings, self.name, remedy)
            return chosen
        if settings.iou is not None:
            raise WrongUse(f"{self.name} finds each object once, without comparing boxes: leave out --iou.")
        return replace(chosen, choice=self._choice(settings))

    def load(self, device: str, precision: str) -> Any:
        """Return a copy of the model on a device, in ``fp32``, ``bf16`` or ``fp16``: HfClassMaps or HfObjects."""
        more = {"task_inputs": self.tokens[self.kind]} if self.tokens else {}
        network = HfClassMaps if self.kind == "semantic" else HfObjects
        return network(
            copy.deepcopy(self.module),
            self.architecture,
            self.processing,
            device=torch.device(device),
            precision=precision,
            more=more,
            choice=self.choice,
        )

    def _choice(self, settings: Settings) -> ObjectChoice:
        conf, most = CONF[self.architecture], int(self.module.config.num_queries)  # type: ignore[union-attr,arg-type]
        default = Rules(conf=conf, iou=1.0, max_det=most, short=1, long=1)
        rules = detection.chosen(replace(settings, imgsz=None), default, self.categories, self.name)
        return ObjectChoice(rules.conf, rules.max_det, rules.classes)


def segmenter(repository: Repository, weights: str, labels: Sequence[str]) -> HfSegmenter | Detector:
    """Return the segmenter of a repository; its classes are named by ``labels`` or its settings.

    ``weights`` are ``pretrained``, ``random`` or the path of a file. A model that can do both finds objects, unless it
    looks at windows of an image or its name says that it is for a class for every pixel.

    Raises:
        WrongUse: it is no segmenter, lacks a file, or has another number of classes than there are labels.
    """
    loading.transformers(repository.name)
    if repository.kind in detectors.WITH_MASKS:
        return detectors.detector(repository, weights, labels, masks=True)
    if repository.kind in QUERIES and importlib.util.find_spec("scipy") is None:
        raise WrongUse(f"--model {repository.name} needs scipy: pip install 'cvjobs[hf]'.")
    module, chosen = loading.loaded(repository, {**PIXELS, **QUERIES}, weights)
    images = processing.of(repository)
    kinds = _kinds(repository, images)
    tokens: dict[Kind, tuple[int, ...]] = {}
    if repository.kind == "oneformer":
        tokens = {kind: task_tokens.of(repository, kind) for kind in kinds}
        for part in module.modules():
            if hasattr(part, "is_training"):  # of some files true: it would drop numbers out, and ask for texts
                part.is_training = False
    published = [category.name for category in loading.distinct(loading.categories(module))]
    if labels and kinds[0] == "semantic" and _is_background(published[0]):
        labels = [BACKGROUND, *labels]
    return HfSegmenter(
        name=repository.name,
        architecture=repository.kind,
        weights=chosen,
        settings_sha256=repository.digest,
        beside=repository.beside,
        categories=_named(kinds[0], class_names.for_head(len(published), labels, published, repository.name)),
        kind=kinds[0],
        kinds=kinds,
        processing=images,
        module=module,
        tokens=tokens,
    )


def _kinds(repository: Repository, images: ImageProcessing) -> tuple[Kind, ...]:
    """Return which kinds of results a model has, first what it is for."""
    if repository.kind in PIXELS or getattr(images.processor, "do_split_image", False):
        return ("semantic",)
    name = (repository.hub or repository.name).rpartition("/")[2].casefold()
    if "semantic" in name and "instance" not in name:
        return "semantic", "instance"
    return "instance", "semantic"


def _named(kind: Kind, names: Sequence[str]) -> list[Category]:
    """Return the classes by the numbers of a model's outputs; of a class map the background as all others call it."""
    spelt = [BACKGROUND if kind == "semantic" and _is_background(name) else name for name in names]
    return [Category(number, name) for number, name in enumerate(spelt)]


def _is_background(name: str) -> bool:
    return class_labels.spelling(name) == class_labels.spelling(BACKGROUND)
