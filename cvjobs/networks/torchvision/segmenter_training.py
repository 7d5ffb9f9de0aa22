"""torchvision's semantic segmenters to be trained: with new last layers, or a head of theirs on any backbone.

`fcn_resnet50` is torchvision's model, `lraspp+mobilenet_v2` a head on a classifier of torchvision's, and
`lraspp+timm/resnet18` on one of timm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn
from torchvision import models
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.models.segmentation.lraspp import LRASPPHead

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.images.transform import Transform
from cvjobs.networks import head_transfer, registry
from cvjobs.networks import weights as files
from cvjobs.networks.torchvision import feature_maps, loading, segmenters
from cvjobs.networks.trainable import Trainable
from cvjobs.networks.weights import Weights

HEADS = ("fcn", "deeplabv3", "lraspp")
JOINT = "+"
SIDE = 520  # pixels of the shorter side, as torchvision's reference has it


class PixelLogits(nn.Module):
    """A segmentation model whose tensors have torchvision's names.

    In training it returns logits at the size of the images: (B, 1, classes, H, W), or (B, 2, ...) with those of the
    auxiliary classifier. In evaluation it returns (B, classes, h, w) on the model's own coarse grid.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.classifier = model.backbone, model.classifier
        self.aux_classifier: nn.Module | None = getattr(model, "aux_classifier", None)
        self._both = isinstance(self.classifier, LRASPPHead)  # it takes the features of two depths

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of normalised (B, 3, H, W) images."""
        features = self.backbone(images)
        logits: Tensor = self.classifier(features if self._both else features["out"])
        if not self.training:
            return logits
        found = [logits]
        if self.aux_classifier is not None:
            found.append(self.aux_classifier(features["aux"]))
        size = images.shape[-2:]
        return torch.stack([F.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in found], 1)


class _Composed(nn.Module):
    """A backbone and a head; ``PixelLogits`` takes them over."""

    def __init__(self, backbone: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone, self.classifier = backbone, classifier


def composed(model: str, backbone: str) -> str:
    """Return the name of a model's head on a backbone; raises WrongUse for a model without such a head or name."""
    family, _, name = model.rpartition("/")
    head = name.partition(JOINT)[0].partition("_")[0]
    if family not in ("", "torchvision") or head not in HEADS:
        raise WrongUse(f"--backbone puts a head of {', '.join(HEADS)} on a classifier: give one of these with --model.")
    home, classifier = registry.located(backbone, "train")
    return f"torchvision/{head}{JOINT}{classifier if home == 'torchvision' else f'{home}/{classifier}'}"


def trainable(name: str, weights: str, classes: int, side: int | None, seed: int, labels: Sequence[str]) -> Trainable:
    """Return a segmenter for so many classes, to be trained on square crops of ``side`` pixels; see ``registry``.

    Raises:
        WrongUse: there is no such model, its weights are not to be had, or ``labels`` are no classes of the weights.
    """
    if JOINT in name:
        return _on_backbone(name, weights, classes, side, seed, labels)
    full = f"torchvision/{name}"
    if name not in segmenters.names():
        raise WrongUse(f"There is no segmenter {full}{nearest(name, segmenters.names())}: `cvjobs models` lists them.")
    entry = models.get_model_weights(name).DEFAULT
    with files.seeded(seed):
        module = _built(name, classes)
    chosen, inherited = files.RANDOM, None
    if weights != "random":
        try:
            chosen = loading.chosen(full, entry, weights)
        except WrongUse as error:
            if weights == "pretrained":
                raise WrongUse(
                    f"{str(error).rstrip('.')}; or give --backbone NAME with weights that are here."
                ) from None
            raise
        tensors, chosen = files.of_model(chosen, partial(loading.names, name, len(entry.meta["categories"])))
        inherited = _begun(module, tensors, chosen, entry.meta["categories"], labels, full)
    return _trainable(full, segmenters.preprocessing(entry), chosen, module, side, inherited)


def _built(name: str, classes: int) -> nn.Module:
    """Return torchvision's model with random weights, with its auxiliary classifier where it has one."""
    more = {} if name.startswith("lraspp") else {"aux_loss": True}
    module: nn.Module = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes, **more)
    return module


def _begun(
    module: Any, tensors: dict[str, Any], weights: Weights, published: Sequence[str], labels: Sequence[str], full: str
) -> int | None:
    """Give a model all tensors of a file but the last layers, and of these the rows of ``labels``; return how many."""
    last = _last(module)
    kept = {key: value for key, value in tensors.items() if key.rpartition(".")[0] not in last}
    missing, unknown = module.load_state_dict(_fitting(module, kept, full, weights), strict=False)
    absent = [key for key in missing if key.rpartition(".")[0] not in last and not key.startswith("aux_classifier.")]
    if absent or unknown:
        raise WrongUse(
            f"The weights file {weights.file} does not fit {full}: it lacks {', '.join(absent[:3]) or 'nothing'} and "
            f"has {', '.join(unknown[:3]) or 'nothing'} beside: choose its model, or another file."
        )
    if not labels:
        return None
    inherited = 0
    for path in last:
        rows = tensors.get(f"{path}.weight")
        if rows is None:
            continue
        new = module.get_submodule(path)
        old = nn.Conv2d(new.in_channels, len(rows), new.kernel_size, bias=new.bias is not None)
        old.load_state_dict({key: tensors[f"{path}.{key}"] for key in old.state_dict()})
        known = head_transfer.names(weights, [(own,) for own in published], len(rows), full)
        inherited = max(inherited, head_transfer.inherit(new, old, labels, known, full))
    return inherited


def _fitting(module: nn.Module, tensors: dict[str, Any], full: str, weights: Weights) -> dict[str, Any]:
    """Return the tensors of a file; raises WrongUse where one has another shape than the model's."""
    own = module.state_dict()
    for key, value in tensors.items():
        if key in own and own[key].shape != value.shape:
            raise WrongUse(f"The weights file {weights.file} does not fit {full} ({key} has another shape).")
    return tensors


def _last(module: Any) -> list[str]:
    """Return where the layers are that have an output for each class."""
    if isinstance(module.classifier, LRASPPHead):
        return ["classifier.low_classifier", "classifier.high_classifier"]
    found = []
    for part in ("classifier", "aux_classifier"):
        head = getattr(module, part, None)
        if head is not None:
            found.append(f"{part}.{len(head) - 1}")
    return found


def _on_backbone(
    name: str, weights: str, classes: int, side: int | None, seed: int, labels: Sequence[str]
) -> Trainable:
    head, _, backbone = name.partition(JOINT)
    if head not in HEADS:
        raise WrongUse(f"There is no head {head!r}{nearest(head, HEADS)}: choose one of {', '.join(HEADS)}.")
    full = f"torchvision/{name}"
    before = None if weights in ("pretrained", "random") else files.given(weights)
    tensors = files.state(before) if before is not None else {}
    whole = {"backbone", "classifier"} <= {key.partition(".")[0] for key in tensors}
    maps, chosen = feature_maps.backbone(backbone, "random" if whole else weights, seed)
    low, deep = maps.channels
    with files.seeded(seed):
        if head == "lraspp":
            classifier: nn.Module = LRASPPHead(low, deep, classes, 128)
        else:
            classifier = DeepLabHead(deep, classes) if head == "deeplabv3" else FCNHead(deep, classes)
    module = _Composed(maps, classifier)
    transform = Transform(resize=SIDE, mean=chosen.transform.mean, std=chosen.transform.std)
    begun, inherited = chosen.weights, None
    if whole and before is not None:
        begun, inherited = before, _begun(module, tensors, before, (), labels, full)
    elif labels:
        raise WrongUse(f"{full} begins with a backbone, which knows no classes: leave out {head_transfer.OPTION}.")
    return _trainable(full, transform, begun, module, side, inherited)


def _trainable(
    full: str, transform: Transform, weights: Weights, module: nn.Module, side: int | None, inherited: int | None
) -> Trainable:
    side = side or transform.resize
    return Trainable(
        name=full,
        transform=Transform(
            size=(side, side),
            resize=side,
            interpolation=transform.interpolation,
            mean=transform.mean,
            std=transform.std,
        ),
        weights=weights,
        module=PixelLogits(module).eval(),
        pooled=lambda model: model,
        inherited=inherited,
    )


def licence_name(name: str) -> str:
    """Return the name of the model whose licence that of a composed one is: its backbone's."""
    return name.partition(JOINT)[2] or name
