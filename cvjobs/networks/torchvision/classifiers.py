"""torchvision's classifiers, as such and as embedders, with the preprocessing of their weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torchvision import models

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.images.transform import Transform
from cvjobs.networks import head_transfer, torch_network
from cvjobs.networks import weights as files
from cvjobs.networks.torch_network import TorchClassifier, TorchEmbedder
from cvjobs.networks.trainable import Trainable, resized
from cvjobs.networks.weights import Weights

# The published densenet files are older than a renaming of their modules: norm.1 became norm1.
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$")


@dataclass(frozen=True, kw_only=True)
class BackboneClassifier:
    """A classifier that others are built on: its full name, how it sees images, its weights and its module."""

    name: str
    transform: Transform
    weights: Weights
    module: nn.Module = field(repr=False)


def with_weights(name: str, weights: str, seed: int = 0) -> BackboneClassifier:
    """Return a classifier as a backbone; raises WrongUse as ``trainable``."""
    full, entry, chosen = _chosen(name, weights)
    module, chosen = _model(name, entry, chosen, seed=seed)
    return BackboneClassifier(name=full, transform=_transform(entry), weights=chosen, module=module)


def names() -> list[str]:
    """Return the names of torchvision's classifiers."""
    return list(models.list_models(module=models))


def embedder(name: str, weights: str, layer: str) -> TorchEmbedder:
    """Return a classifier whose vector is the input of its last layer, or the pooled output of a named one."""
    full, entry, chosen = _chosen(name, weights)
    model, chosen = _model(name, entry, chosen)
    return torch_network.embedder(full, _transform(entry), chosen, model, layer, _backbone)


def classifier(name: str, weights: str, labels: Sequence[str]) -> TorchClassifier:
    """Return a classifier; without other names its classes have those of the published weights."""
    full, entry, chosen = _chosen(name, weights)
    model, chosen = _model(name, entry, chosen)
    return torch_network.classifier(full, _transform(entry), chosen, model, labels, entry.meta["categories"])


def trainable(name: str, weights: str, classes: int, side: int | None, seed: int, labels: Sequence[str]) -> Trainable:
    """Return a classifier with a new last layer; one with embedded positions keeps the size of its weights."""
    full, entry, chosen = _chosen(name, weights)
    transform = _transform(entry)
    fixed = name.startswith("maxvit") or (name.startswith("vit_") and chosen.file is not None)
    if fixed and side and transform.size != (side, side):
        raise WrongUse(f"{full} takes images of {min(transform.size or (0,))} pixels: leave out --img-size.")
    options: dict[str, Any] = {"image_size": side} if side and name.startswith("vit_") else {}
    if name in ("googlenet", "inception_v3"):
        # Said here, for a state dict does not tell: the inputs are what the published weights want.
        options["transform_input"] = True
    built, chosen = _model(name, entry, chosen, options, seed)
    model: Any = built
    for auxiliary in ("aux1", "aux2", "AuxLogits"):
        if hasattr(model, auxiliary):
            setattr(model, auxiliary, None)
            model.aux_logits = False
    before = model.get_submodule(_last(model))
    with files.seeded(seed):
        head = _like(before, classes)
    _put_last(model, head)
    inherited = None
    if labels:
        named = head_transfer.names(chosen, _synonyms(entry), len(before.weight), full)
        inherited = head_transfer.inherit(head, before, labels, named, full)
    return Trainable(
        name=full,
        transform=resized(transform, side),
        weights=chosen,
        module=model,
        pooled=_backbone,
        inherited=inherited,
    )


def _synonyms(entry: Any) -> list[tuple[str, str]]:
    """Return the category and WordNet's own name of each of ImageNet's classes, which torchvision has in its order."""
    from timm.data.imagenet_info import ImageNetInfo

    ids: list[str] = ImageNetInfo().label_names()  # type: ignore[no-untyped-call]
    return list(zip(entry.meta["categories"], ids, strict=True))


def _like(layer: nn.Module, classes: int) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        return nn.Conv2d(layer.in_channels, classes, layer.kernel_size)  # type: ignore[arg-type]
    assert isinstance(layer, nn.Linear)
    return nn.Linear(layer.in_features, classes)


def _chosen(name: str, weights: str) -> tuple[str, Any, Weights]:
    """Return a model's full name and what ``_weights`` does."""
    full = f"torchvision/{name}"
    if name not in names():
        raise WrongUse(f"There is no model {full}{nearest(name, names())}: `cvjobs models` lists them.")
    return full, *_weights(name, weights)


def _weights(name: str, weights: str) -> tuple[Any, Weights]:
    """Return the entry of torchvision's weights whose metadata hold, and the weights themselves."""
    catalogue = models.get_model_weights(name)
    # The newest first; without categories it is a detector's backbone, whose classifier is not trained.
    others = [entry for entry in reversed(list(catalogue)) if entry.meta["categories"]]
    entries = [catalogue.DEFAULT, *(entry for entry in others if entry is not catalogue.DEFAULT)]
    if weights == "random":
        return catalogue.DEFAULT, files.RANDOM
    if weights != "pretrained":
        chosen = files.given(weights)
        for entry in entries:
            if chosen.sha256.startswith(files.named_hash(entry.url)):
                return entry, Weights(entry.name, chosen.file, chosen.sha256)
        return catalogue.DEFAULT, chosen
    for entry in entries:
        found = files.cached(entry.url.rpartition("/")[2], entry.name)
        if found:
            return entry, found
    return catalogue.DEFAULT, files.fetched(catalogue.DEFAULT.url, f"torchvision/{name}", catalogue.DEFAULT.name)


def _transform(entry: Any) -> Transform:
    preset = entry.transforms()
    (short,), (side,) = preset.resize_size, preset.crop_size
    return Transform(
        size=(side, side),
        resize=short,
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _model(
    name: str, entry: Any, weights: Weights, given: Mapping[str, Any] = MappingProxyType({}), seed: int = 0
) -> tuple[nn.Module, Weights]:
    """Return the classifier, built as torchvision builds it for that entry but for what is given, and its weights.

    These say what of their file was taken.
    """
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options["image_size"] = entry.meta["min_size"][0]
    if name in ("googlenet", "inception_v3"):
        options = {"init_weights": False, "aux_logits": False, "transform_input": weights.file is not None}
    options |= given
    if weights.file is None:
        with files.seeded(seed):
            return _built(name, options), weights
    tensors, weights = files.of_model(weights, partial(_names, name, options))
    if "aux_logits" in options:
        options["aux_logits"] = any(key.startswith(("aux1.", "AuxLogits.")) for key in tensors)
    if name.startswith("densenet"):
        for key in list(tensors):
            tensors[_OLD_DENSENET.sub(r"\1\2", key)] = tensors.pop(key)
    model = _built(name, options)
    head = f"{_last(model)}.weight"
    if head in tensors and len(tensors[head]) != len(model.get_parameter(head)):
        files.say_head(weights, len(tensors[head]), len(model.get_parameter(head)))
        model = _built(name, {**options, "num_classes": len(tensors[head])})
    files.fitted(lambda: model.load_state_dict(tensors), f"torchvision/{name}", weights, tensors)
    return model, weights


def _names(name: str, options: Mapping[str, Any]) -> list[str]:
    """Return the names of a model's tensors; a densenet's are those of today."""
    try:
        with torch.device("meta"):
            return list(_built(name, dict(options)).state_dict())
    except NotImplementedError:  # a RegNet works out its widths with tensors
        return list(_built(name, dict(options)).state_dict())


def _built(name: str, options: dict[str, Any]) -> nn.Module:
    model: nn.Module = models.get_model(name, weights=None, **options)
    return model.eval()


def _backbone(model: nn.Module) -> nn.Module:
    """Let the input of the last layer through; after it the model only pools (squeezenet) or does nothing."""
    _put_last(model, nn.Identity())
    return model


def _put_last(model: nn.Module, layer: nn.Module) -> None:
    parent, _, child = _last(model).rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def _last(model: nn.Module) -> str:
    """Return where the last layer is, which has an output for each class."""
    paths: list[str] = [path for path, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return paths[-1]
