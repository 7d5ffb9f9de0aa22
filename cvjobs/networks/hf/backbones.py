"""Models of transformers that make one vector of an image, and classifiers of whole images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import Tensor, nn

from cvjobs.common.errors import WrongUse
from cvjobs.networks import torch_network
from cvjobs.networks.hf import loading, preprocessing
from cvjobs.networks.hf.repository import Repository
from cvjobs.networks.torch_network import FeatureExtractor, TorchClassifier, TorchEmbedder

Made = TypeVar("Made", bound=TorchEmbedder)
_VISION = "vision_config"


@dataclass(frozen=True)
class Backbone:
    """How a kind of model makes vectors: transformers' class, and which of its outputs the vector is.

    ``vector`` is ``pooler_output`` or ``image_embeds``, or ``first`` for the first token after the last norm.
    """

    made: str
    vector: str
    part: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


_WITHOUT_POOLER = {"add_pooling_layer": False}  # which most published weights do not have
BACKBONES = {
    "vit": Backbone("ViTModel", "first", options=_WITHOUT_POOLER),
    "deit": Backbone("DeiTModel", "first", options=_WITHOUT_POOLER),
    "swin": Backbone("SwinModel", "pooler_output"),
    "swinv2": Backbone("Swinv2Model", "pooler_output"),
    "convnext": Backbone("ConvNextModel", "pooler_output"),
    "convnextv2": Backbone("ConvNextV2Model", "pooler_output"),
    "dinov2": Backbone("Dinov2Model", "pooler_output"),
    "dinov2_with_registers": Backbone("Dinov2WithRegistersModel", "pooler_output"),
    "dinov3_vit": Backbone("DINOv3ViTModel", "pooler_output"),
    "dinov3_convnext": Backbone("DINOv3ConvNextModel", "pooler_output"),
    "siglip": Backbone("SiglipVisionModel", "pooler_output", part=_VISION),
    "siglip_vision_model": Backbone("SiglipVisionModel", "pooler_output"),
    "clip": Backbone("CLIPVisionModelWithProjection", "image_embeds", part=_VISION),
    "clip_vision_model": Backbone("CLIPVisionModelWithProjection", "image_embeds"),
}
CLASSIFIERS = {
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassification",
    "swin": "SwinForImageClassification",
    "swinv2": "Swinv2ForImageClassification",
    "convnext": "ConvNextForImageClassification",
    "convnextv2": "ConvNextV2ForImageClassification",
    "dinov2": "Dinov2ForImageClassification",
    "dinov2_with_registers": "Dinov2WithRegistersForImageClassification",
    "siglip": "SiglipForImageClassification",
    "clip": "CLIPForImageClassification",
}
_DISTILLED = "DeiTForImageClassificationWithTeacher"


def embedder(repository: Repository, weights: str, layer: str) -> TorchEmbedder:
    """Return a model as a maker of vectors: its own vector of an image, or a named layer's pooled output.

    Raises:
        WrongUse: it is of a kind that makes none, its images are prepared in a way that a transform cannot say, its
            weights are missing or don't fit, or it has no such layer.
    """
    _check_fixed(repository)
    backbone = _backbone(repository)
    classes = {kind: known.made for kind, known in BACKBONES.items()}
    if backbone.made:
        classes[repository.kind] = backbone.made
    model, found = loading.loaded(repository, classes, weights, part=backbone.part, options=backbone.options)
    transform = preprocessing.transform(repository)
    size = transform.size
    assert size is not None

    def module(whole: nn.Module) -> nn.Module:
        return LayerVectors(whole, repository.name, layer, size) if layer else VisionVectors(whole, backbone.vector)

    made = _made(repository, lambda: torch_network.embedder(repository.name, transform, found, model, "", module))
    return replace(made, facts={**made.facts, "layer": layer or "pooled"})


def classifier(repository: Repository, weights: str, labels: Sequence[str]) -> TorchClassifier:
    """Return a model that names what an image shows; without other names its classes have those of its settings.

    Raises:
        WrongUse: as ``embedder``, and for a number of names that is not the number of classes.
    """
    _check_fixed(repository)
    distilled = _DISTILLED in _architectures(repository)
    classes = {**CLASSIFIERS, "deit": _DISTILLED} if distilled else CLASSIFIERS
    model, found = loading.loaded(repository, classes, weights)
    transform = preprocessing.transform(repository)
    published = [category.name for category in loading.distinct(loading.categories(model))]
    made = _made(
        repository,
        lambda: torch_network.classifier(repository.name, transform, found, VisionLogits(model), labels, published),
    )
    if repository.config.get("problem_type") != "multi_label_classification":
        return made
    return replace(made, activation="sigmoid", facts={**made.facts, "activation": "sigmoid"})


class VisionVectors(nn.Module):
    """A model of transformers whose result is one vector of an image."""

    def __init__(self, model: nn.Module, vector: str) -> None:
        super().__init__()
        self.model = model
        self._vector = vector

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C) vectors of (B, 3, H, W) images."""
        output = self.model(images)
        vectors: Tensor = output.last_hidden_state[:, 0] if self._vector == "first" else output[self._vector]
        return vectors


class LayerVectors(FeatureExtractor):
    """A model of transformers whose result is the pooled output of one of its modules, the first of several."""

    def _pooled(self, output: Any) -> Tensor:
        several = not isinstance(output, Tensor) and isinstance(output, (tuple, OrderedDict)) and len(output) > 0
        return super()._pooled(output[0 if isinstance(output, tuple) else next(iter(output))] if several else output)


class VisionLogits(nn.Module):
    """A classifier of transformers whose result is the logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, classes) logits of (B, 3, H, W) images."""
        logits: Tensor = self.model(images).logits
        return logits


def _backbone(repository: Repository) -> Backbone:
    kind = repository.kind
    if kind == "clip_vision_model" and "CLIPVisionModel" in _architectures(repository):
        return Backbone("CLIPVisionModel", "pooler_output")  # one that was saved without the projection
    return BACKBONES.get(kind, Backbone("", ""))


def _architectures(repository: Repository) -> Sequence[str]:
    named = repository.config.get("architectures")
    return named if isinstance(named, list) else ()


def _check_fixed(repository: Repository) -> None:
    if repository.kind.startswith("siglip2"):
        raise WrongUse(
            f"{repository.name} is a NaFlex model, which takes images of any proportions: choose one of a fixed size, "
            "such as hf/siglip2-base-patch16-224."
        )


def _made(repository: Repository, make: Callable[[], Made]) -> Made:
    """Return a model with the digest of its settings among the facts; raises WrongUse where they don't go together."""
    try:
        with loading.quiet():
            made = make()
    except (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, WrongUse):
            raise
        raise loading.senseless(repository, error) from error
    facts = {**made.facts, "settings_sha256": repository.digest}
    return replace(made, facts=facts, beside=repository.beside)
