"""`timm/NAME` or `timm/NAME.TAG`: timm's models as embedders and classifiers, with their weights' preprocessing."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import huggingface_hub
import timm
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from timm.data.config import resolve_data_config
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.images.transform import Transform
from cvjobs.networks import checkpoint, head_transfer, licences, timm_maps, torch_network
from cvjobs.networks import weights as files
from cvjobs.networks.licences import Licence
from cvjobs.networks.torch_network import TorchClassifier, TorchEmbedder
from cvjobs.networks.torchvision.classifiers import BackboneClassifier
from cvjobs.networks.trainable import Trainable, resized
from cvjobs.networks.weights import Weights

# OSError and the HTTP client's own error: which client it is differs between versions of the hub's library.
_UNREACHABLE = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)
_FILES = ("model.safetensors", "pytorch_model.bin")


def names(task: str) -> list[str]:
    """Return the names of timm's models, and with each tag of their weights; those that ``classify`` name classes."""
    if task not in ("embed", "classify", "train"):
        return []
    known = list(_known())
    return known if task != "classify" else [name for name in known if infer_imagenet_subset(_config(name))]


@cache
def _known() -> dict[str, None]:
    return dict.fromkeys(sorted({*timm.list_models(), *timm.list_pretrained()}))


def licence(name: str) -> Licence:
    """Return timm's own licence, and the one that timm's configuration has of the weights."""
    _check(name)
    return Licence(code="Apache-2.0", weights=licences.spelt(_config(name).get("license")))


def embedder(name: str, weights: str, layer: str) -> TorchEmbedder:
    """Return a model whose vector is the pooled features before its classifier, or a named layer's pooled output."""
    full, config, transform, chosen = _chosen(name, weights)
    model, chosen = _model(full, name, config, chosen)
    return torch_network.embedder(full, transform, chosen, model, layer, Pooled)


def classifier(name: str, weights: str, labels: Sequence[str]) -> TorchClassifier:
    """Return a classifier; without other names its classes have those of the ImageNet that it was trained on.

    timm's configurations say of no model that its classes do not exclude each other.
    """
    full, config, transform, chosen = _chosen(name, weights)
    model, chosen = _model(full, name, config, chosen)
    if not model.num_classes:
        raise WrongUse(f"{full} has no classifier: choose another model, or --weights FILE of one that has.")
    return torch_network.classifier(full, transform, chosen, model, labels, _published(config))


def trainable(name: str, weights: str, classes: int, side: int | None, seed: int, labels: Sequence[str]) -> Trainable:
    """Return a model with a new head; one whose input has a fixed size is built for images of ``side``."""
    full, config, transform, chosen = _chosen(name, weights)
    if not config["num_classes"] or not config["classifier"]:
        raise WrongUse(f"{full} has no classifier to train: choose another model.")
    options = {"img_size": side} if side and config["fixed_input_size"] else {}
    model, chosen = _model(full, name, config, chosen, options, seed)
    before = copy.deepcopy(_head(model)) if labels else None  # some models change theirs in its place
    known = model.num_classes if labels else 0
    with files.seeded(seed):
        model.reset_classifier(classes)
    inherited = None
    if before is not None:
        named = head_transfer.names(chosen, _synonyms(config), known, full)
        inherited = head_transfer.inherit(_head(model), before, labels, named, full)
    return Trainable(
        name=full,
        transform=resized(transform, side),
        weights=chosen,
        module=model,
        pooled=Pooled,
        inherited=inherited,
    )


def feature_maps(name: str, weights: str, seed: int) -> BackboneClassifier:
    """Return the feature maps of a classifier, a list of them; see ``timm_maps.maps``."""
    full, config, transform, chosen = _chosen(name, weights)
    model, chosen = _model(full, name, config, chosen, seed=seed)
    return BackboneClassifier(name=full, transform=transform, weights=chosen, module=timm_maps.maps(model, name))


def _head(model: Any) -> nn.Module:
    """Return what makes logits of the pooled features; a distilled model has two of it."""
    head = model.get_classifier()
    return head if isinstance(head, nn.Module) else nn.ModuleList(head)


def _chosen(name: str, weights: str) -> tuple[str, dict[str, Any], Transform, Weights]:
    """Return a model's full name, timm's configuration of it, its preprocessing and its weights."""
    _check(name)
    config = _config(name)
    full = f"timm/{name.partition('.')[0]}" + (f".{config['tag']}" if config.get("tag") else "")
    return full, config, _transform(full, config), _weights(full, config, weights)


def _check(name: str) -> None:
    if name not in _known():
        raise WrongUse(f"There is no model timm/{name}{nearest(name, _known())}: `cvjobs models` lists them.")


def _config(name: str) -> dict[str, Any]:
    registered = get_pretrained_cfg(name)
    assert registered is not None
    config: dict[str, Any] = registered.to_dict()  # type: ignore[no-untyped-call]
    return config


def _published(config: dict[str, Any]) -> list[str]:
    """Return the classes as timm describes them, with WordNet's own name where two have one description."""
    described = _synonyms(config)
    often = Counter(text for text, _ in described)
    return [text if often[text] == 1 else f"{text} ({name})" for text, name in described]


def _synonyms(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the description and WordNet's own name of each class that a published model was trained with."""
    subset = infer_imagenet_subset(config)
    if subset is None:
        return []
    described = ImageNetInfo(subset).label_descriptions(as_dict=True)
    assert isinstance(described, dict)
    return [(text, name) for name, text in described.items()]


class Pooled(nn.Module):
    """A timm model up to its classifier."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C) features of (B, 3, H, W) images."""
        features: Tensor = self.model.forward_head(self.model.forward_features(images), pre_logits=True)
        return features


def _transform(name: str, config: dict[str, Any]) -> Transform:
    """Return the preprocessing of timm's ``create_transform`` for evaluation, where a ``Transform`` can say it."""
    data: dict[str, Any] = resolve_data_config(pretrained_cfg=config)  # type: ignore[no-untyped-call]
    _, height, width = data["input_size"]
    mode, share = data["crop_mode"], data["crop_pct"]
    if (mode == "center" and height != width) or (mode == "squash" and share != 1) or mode == "border":
        raise WrongUse(f"{name} wants images prepared in a way that cvjobs does not offer: choose another model.")
    return Transform(
        size=(height, width),
        resize=0 if mode == "squash" else math.floor(height / share),
        fit="exact" if mode == "squash" else "short",
        interpolation=data["interpolation"],
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )


def _weights(name: str, config: dict[str, Any], weights: str) -> Weights:
    if weights == "random":
        return files.RANDOM
    if weights != "pretrained":
        return files.given(weights)
    label = config.get("tag") or "pretrained"
    if config.get("hf_hub_id"):
        return _from_hub(name, config["hf_hub_id"], label)
    if config.get("url"):
        return files.fetched(config["url"], name, label)
    raise WrongUse(f"timm publishes no weights for {name}: name a file with --weights FILE, or choose another model.")


def _from_hub(name: str, repository: str, label: str) -> Weights:
    """Return the weights of a Hugging Face repository: from its cache, or downloaded into it."""
    for file in _FILES:
        place = huggingface_hub.try_to_load_from_cache(repository, file)
        if isinstance(place, str):
            return files.from_file(Path(place), label)
    url = huggingface_hub.hf_hub_url(repository, _FILES[0])
    try:
        offered = [file for file in _FILES if _offers(repository, file)]
        if offered:
            return files.from_file(Path(huggingface_hub.hf_hub_download(repository, offered[0])), label)
        reason: Exception = FileNotFoundError("the repository has no such file")
    except _UNREACHABLE as error:
        reason = error
    absent = f"{_FILES[0]} of the repository {repository} is not in {huggingface_hub.constants.HF_HUB_CACHE}"
    raise files.missing(name, absent, url, reason, "fetch it where there is a network, then pass --weights FILE")


def _offers(repository: str, file: str) -> bool:
    """Ask once: without a network the download itself would ask six times, for 24 s."""
    try:
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repository, file), timeout=files.TIMEOUT)
    except EntryNotFoundError:
        return False
    return True


def _model(
    full: str,
    name: str,
    config: dict[str, Any],
    weights: Weights,
    options: Mapping[str, Any] = MappingProxyType({}),
    seed: int = 0,
) -> tuple[Any, Weights]:
    """Return the model, and its weights, which say what of their file was taken.

    timm itself adapts the names in files that are older than its modules, and some of its models open a checkpoint:
    what it can read is left to it.
    """
    if weights.file is None:
        with files.seeded(seed):
            return timm.create_model(name, **options).eval(), weights
    found = files.state(weights)
    try:
        model = _filled(full, name, config, weights, found, options)
    except WrongUse:
        with files.seeded():
            own = timm.create_model(name, **options).state_dict().keys()
        state = checkpoint.model_state(found, own, weights.file)
        if not state.how:
            raise
        tensors, weights = files.taken(weights, state)
        return _filled(full, name, config, weights, tensors, options), weights
    if not all(isinstance(value, Tensor) for value in found.values()):
        _, weights = files.taken(weights, checkpoint.used(found, model.state_dict()))
    return model, weights


def _filled(
    full: str, name: str, config: dict[str, Any], weights: Weights, tensors: dict[str, Any], options: Mapping[str, Any]
) -> Any:
    # timm's own adapters change the dict, and those in it.
    own = {key: dict(value) if isinstance(value, dict) else value for key, value in tensors.items()}
    overlay: dict[str, Any] = {"state_dict": own}
    heads = config["classifier"]
    head = tensors.get(f"{heads if isinstance(heads, str) else heads[0]}.weight") if heads else None
    if isinstance(head, Tensor) and head.ndim:
        overlay["num_classes"] = len(head)  # else timm would leave out a head of another size, and say nothing
    model: Any = files.fitted(
        lambda: timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options),
        full,
        weights,
        tensors,
    )
    if isinstance(head, Tensor) and head.ndim:
        files.say_head(weights, len(head), config["num_classes"])
    model.pretrained_cfg.pop("state_dict")  # a second copy of every tensor
    return model.eval()
