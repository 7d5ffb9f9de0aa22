"""`timm/NAME` or `timm/NAME.TAG`: every timm model as an embedder, with the preprocessing of its weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import huggingface_hub
import timm
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from timm.data.config import resolve_data_config
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from cvjobs import networks
from cvjobs import weights as files
from cvjobs.errors import WrongUse, nearest
from cvjobs.networks import TorchEmbedder
from cvjobs.records import Transform
from cvjobs.weights import Weights

# OSError and the HTTP client's own error: which client it is differs between versions of the hub's library.
_UNREACHABLE = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)
_FILES = ("model.safetensors", "pytorch_model.bin")


def names(task: str) -> list[str]:
    """Return the names of timm's models, and with each tag of their weights, for the task ``embed``."""
    return sorted({*timm.list_models(), *timm.list_pretrained()}) if task == "embed" else []


def embedder(name: str, weights: str, layer: str) -> TorchEmbedder:
    """Return a model whose vector is the pooled features before its classifier, or a named layer's pooled output."""
    if name not in names("embed"):
        raise WrongUse(f"There is no model timm/{name}{nearest(name, names('embed'))}: `cvjobs models` lists them.")
    registered = get_pretrained_cfg(name)
    assert registered is not None
    config: dict[str, Any] = registered.to_dict()  # type: ignore[no-untyped-call]
    full = f"timm/{name.partition('.')[0]}" + (f".{config['tag']}" if config.get("tag") else "")
    transform = _transform(full, config)
    chosen = _weights(full, config, weights)
    return networks.embedder(full, transform, chosen, _model(full, name, chosen), layer, Pooled)


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


def _model(full: str, name: str, weights: Weights) -> Any:
    """Return the model with its weights; timm itself adapts the names in files that are older than its modules."""
    if weights.file is None:
        with files.seeded():
            return timm.create_model(name).eval()
    overlay = {"state_dict": files.state(weights)}
    model: Any = files.fitted(
        lambda: timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay), full, weights
    )
    model.pretrained_cfg.pop("state_dict")  # a second copy of every tensor
    return model.eval()
