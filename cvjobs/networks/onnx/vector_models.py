"""ONNX files that give a vector an image: embedders, and classifiers, whose vectors are the scores of the classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvjobs.common import categories as common_categories
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse, nearest
from cvjobs.images.transform import Transform
from cvjobs.networks import class_names
from cvjobs.networks.onnx import onnx_model
from cvjobs.networks.onnx.onnx_model import GREYS, IMAGENET, PLAIN, OnnxModel, listed
from cvjobs.networks.onnx.session import ImageInput, Session
from cvjobs.networks.torch_network import Normalizer
from cvjobs.networks.weights import Activation

SIDE = 224  # in pixels, where neither the file nor the card says one
CROP = 0.875  # of the shorter side, by default
LEAST = 1e-12  # a probability of 0
_KEYS = ("size", "resize", "short", "interpolation", "channels", "scale", "mean", "std")
_VECTORS = ("embed", "pool", "feature", "vector")
_SCORES = ("logit", "prob", "score", "output", "class")


@dataclass(frozen=True, kw_only=True)
class OnnxEmbedder:
    """An ONNX file as a maker of vectors (B, dim): one of its outputs, pooled where it is a map or tokens."""

    model: OnnxModel = field(repr=False)
    output: str
    dim: int
    resolved: Mapping[str, Any]
    transform: Transform

    @property
    def name(self) -> str:
        """See ``Model``."""
        return self.model.name

    @property
    def file(self) -> str:
        """See ``Model``."""
        return str(self.model.file.path)

    @property
    def beside(self) -> tuple[str, ...]:
        """See ``OnnxModel``."""
        return self.model.beside

    @property
    def facts(self) -> Mapping[str, Any]:
        """See ``Model``."""
        return {**self.model.facts(self.resolved), "layer": self.output}

    def load(self, device: str, precision: str) -> VectorNetwork:
        """Return the model on a device; the file says in what it computes."""
        del precision
        session = self.model.on(device)
        return VectorNetwork(session, self.model.taken, self.transform, self.resolved, self.output, self._vectors)

    def _vectors(self, outputs: Mapping[str, Tensor]) -> Tensor:
        return pooled(outputs[self.output].float())


@dataclass(frozen=True, kw_only=True)
class OnnxClassifier(OnnxEmbedder):
    """An ONNX file whose vectors are the logits of its classes, in the order of ``labels``."""

    labels: tuple[str, ...]
    activation: Activation

    @property
    def facts(self) -> Mapping[str, Any]:
        """See ``Model``."""
        task = common_categories.facts("classify", [Category(i, label) for i, label in enumerate(self.labels)])
        return {**self.model.facts(self.resolved), "activation": self.activation, **task}

    def _vectors(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return logits, also of a file that ends with probabilities."""
        scores = outputs[self.output].float().flatten(1)
        if self.resolved["output"] == "logits":
            return scores
        likely = scores.clamp(LEAST, 1)
        return likely.log() if self.activation == "softmax" else likely.log() - (1 - scores).clamp(LEAST, 1).log()


class VectorNetwork:
    """One model on one device; several threads may call it at once."""

    def __init__(
        self,
        session: Session,
        taken: ImageInput,
        transform: Transform,
        resolved: Mapping[str, Any],
        output: str,
        vectors: Callable[[Mapping[str, Tensor]], Tensor],
    ) -> None:
        self._output = output
        self._session, self._taken, self._vectors = session, taken, vectors
        self._normalizer = Normalizer(transform, torch.device("cpu"), torch.float32)
        self._bgr = resolved["channels"] == "BGR"

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the (B, dim) float32 vectors of (B, height, width, 3) RGB pixels; MemoryError as ``Network``."""
        with torch.inference_mode():
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
            images = self._normalizer(images.flip(1) if self._bgr else images)
            each = [self._output] if len(self._taken.layout) > 3 else []
            pieces = self._session.pieces(images, self._taken, each)
            parts = [self._vectors(found)[:count] for count, found in pieces]
            vectors: NDArray[np.float32] = torch.cat(parts).contiguous().numpy()
            return vectors


def pooled(found: Tensor) -> Tensor:
    """Return (B, C): a map's mean over height and width, tokens' over the tokens."""
    if found.ndim == 4:
        return found.mean((2, 3))
    return found.mean(1) if found.ndim == 3 else found


def embedder(name: str, weights: str, layer: str) -> OnnxEmbedder:
    """Return a file as an embedder; ``layer`` names one of its outputs, empty for the one that is a vector.

    Raises:
        WrongUse: see ``onnx_model.opened``; there is no such output, or it is not told which one is the vector.
    """
    model = onnx_model.opened(name, weights, "embed")
    shapes = model.shapes("embed")
    if layer and layer not in shapes:
        raise WrongUse(f"{model.file.path} has no output {layer!r}{nearest(layer, shapes)}: name one with --layer.")
    output = layer or model.named("vector") or _chosen(model, shapes, "vector", _VECTORS)
    if not 2 <= len(shapes[output]) <= 4:
        raise WrongUse(
            f"The output {output!r} of {model.file.path} is no vector, tokens or map: name another with --layer."
        )
    values, transform = _framed(model)
    shape = shapes[output]
    dim = shape[2] if len(shape) == 3 else shape[1]
    return OnnxEmbedder(
        model=model, output=output, dim=dim, resolved={**values, "output": "vector"}, transform=transform
    )


def classifier(name: str, weights: str, labels: Sequence[str]) -> OnnxClassifier:
    """Return a file as a classifier with the classes in ``labels``, or those that it or its card names.

    Raises:
        WrongUse: as ``embedder``, and for classes without names.
    """
    model = onnx_model.opened(name, weights, "classify")
    shapes = model.shapes("classify")
    said = model.card.get("output", "")
    output = (said and model.named(said)) or model.named("logits") or model.named("probabilities")
    output = output or _chosen(model, shapes, "logits", _SCORES)
    end = model.file.ends.get(output, "")
    usual: dict[str, Activation] = {"Sigmoid": "sigmoid"}
    kind = said or ("probabilities" if end in ("Softmax", "Sigmoid") else "logits")
    if kind not in ("logits", "probabilities"):
        raise WrongUse(
            f"{model.card.file} says output: {kind}, which is no classifier's: write logits or probabilities."
        )
    activation: Activation = model.card.get("activation", usual.get(end, "softmax"))
    if activation not in ("softmax", "sigmoid"):
        raise WrongUse(f"{model.card.file} says activation: {activation}: a classifier has softmax or sigmoid.")
    values, transform = _framed(model)
    classes = int(np.prod(shapes[output][1:]))
    return OnnxClassifier(
        model=model,
        output=output,
        dim=classes,
        resolved={**values, "output": kind},
        transform=transform,
        labels=_labels(model, classes, labels),
        activation=activation,
    )


def _labels(model: OnnxModel, classes: int, given: Sequence[str]) -> tuple[str, ...]:
    """Return the names that are given, those of the card, or of ImageNet's classes where there are a thousand."""
    said = model.card.get("labels", ())
    if isinstance(said, Mapping):
        if not given and list(said) != list(range(classes)):
            raise WrongUse(f"{model.card.file} has labels of other numbers than 0 to {classes - 1}: name each class.")
        said = tuple(said.values())
    published = class_names.imagenet() if classes == class_names.IMAGENET else []
    by = "--labels" if given else str(model.card.file)
    return tuple(class_names.for_head(classes, given or said, published, str(model.file.path), by))


def _chosen(model: OnnxModel, shapes: Mapping[str, tuple[int, ...]], role: str, hints: Sequence[str]) -> str:
    """Return the output that is a vector an image: the only one, or the only one with such a name."""
    alone = "N" not in model.taken.layout  # then what has any number of rows lists what is in the image
    lists = [value.name for value in model.file.outputs if alone and value.shape and value.shape[0] is None]
    vectors = [name for name, shape in shapes.items() if len(shape) >= 2 and all(side == 1 for side in shape[2:])]
    vectors = [name for name in vectors if name not in lists]
    hinted = [name for name in vectors if any(hint in name.lower() for hint in hints)]
    for found in (vectors, hinted):
        if len(found) == 1:
            return found[0]
    if not vectors:
        remedy = "name one with --layer, to be pooled" if role == "vector" else model.elsewhere
        raise WrongUse(
            f"No output of {model.file.path} is one vector an image: it has {listed(model.file.outputs)}; {remedy}."
        )
    raise model.card.ask(model.file.path, f"which output has the {role}", "outputs", f"{{{role}: {vectors[0]}}}")


def _framed(model: OnnxModel) -> tuple[dict[str, Any], Transform]:
    """Return the values of the keys of the card, with defaults, and the transform that they are."""
    side = model.side or SIDE
    height, width = model.size or (side, side)
    theirs = "names" in model.file.metadata  # Ultralytics'
    short = min(height, width) if theirs else round(min(height, width) / CROP)
    default = {
        "resize": "crop" if height == width else "squash",
        "short": short,
        "interpolation": "bilinear",
        "channels": "RGB",
        **(GREYS if model.taken.kind == "uint8" else PLAIN if theirs else IMAGENET),
    }
    values = onnx_model.resolved(model.card, _KEYS, default)
    values["size"] = (height, width)
    if values["resize"] not in ("crop", "squash"):
        raise WrongUse(
            f"{model.card.file} says resize: {values['resize']}, which models of one vector an image do not have here: "
            "write crop or squash."
        )
    if values["resize"] == "squash":
        values["short"] = None
    how: dict[str, Any] = {"fit": "short", "resize": values["short"]} if values["short"] else {"fit": "exact"}
    return values, model.transform(values, size=(height, width), interpolation=values["interpolation"], **how)
