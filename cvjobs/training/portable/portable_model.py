"""A run's model for other programs: its module, what its outputs are called, and what its file says of it.

A function for each task makes it of an opened run; a file says the same words as the card that `onnx/FILE` reads.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.images.transform import Transform
from cvjobs.networks import weights as files
from cvjobs.networks.families import training_run
from cvjobs.networks.families.training_run import ABOUT, OpenedRun
from cvjobs.networks.licences import Licence
from cvjobs.networks.torch_network import Normalizer

INPUT = "images"
LICENCE = "licence"
SAMPLE = 4  # images that a file is checked with
CLOSE = 1e-3  # of scores, and of the largest value of an output
# What JSON may hold as it is, and YAML, as which cards are read, may not.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


@dataclass(frozen=True, kw_only=True)
class PortableModel:
    """A module on the CPU from normalised float32 (B, 3, height, width) to tensors, one for each name in ``outputs``.

    ``card`` are keys and values of ``onnx.card``, ``about`` is what the run's own file says, ``licence`` has those of
    the weights that it began with, ``tensors`` are its weights by the names that the run's file has.
    """

    run: str
    name: str
    task: str
    module: nn.Module = field(repr=False)
    outputs: tuple[str, ...]
    transform: Transform
    card: Mapping[str, Any]
    about: Mapping[str, Any]
    licence: Licence
    tensors: Mapping[str, Tensor] = field(repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) in pixels of its images."""
        assert self.transform.size is not None
        return self.transform.size

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its classes."""
        return tuple(self.card.get("labels", ()))

    def facts(self) -> dict[str, Any]:
        """Return what its file says of it, as JSON types: the card, the licences, and what the run's own file says."""
        return {**self.card, LICENCE: self.licence.record(), ABOUT: dict(self.about)}

    def metadata(self) -> dict[str, str]:
        """Return ``facts`` as text: words as they are, all else as JSON that is YAML, too."""
        return {key: value if isinstance(value, str) else _text(value) for key, value in self.facts().items()}

    def sample(self, count: int = SAMPLE) -> Tensor:
        """Return random images as the module takes them: noise, smooth and rough, always the same."""
        made = torch.Generator().manual_seed(0)
        coarse = torch.rand(count, 3, 5, 5, generator=made)
        smooth = nn.functional.interpolate(coarse, self.size, mode="bilinear", align_corners=False)
        grain = torch.rand(count, 3, *self.size, generator=made)
        pixels = (255 * (0.7 * smooth + 0.3 * grain)).round()
        return Normalizer(self.transform, torch.device("cpu"), torch.float32)(pixels)

    def expected(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return what torch itself computes of images."""
        with torch.inference_mode():
            return tuple(self.module(images))

    def compare(self, images: Tensor, found: Sequence[Tensor]) -> float:
        """Return by how much the outputs of a file differ from torch's: the largest share of an output's largest value.

        Raises:
            JobFailed: by more than ``CLOSE``, or where either is no number.
        """
        most = 0.0
        for name, one, other in zip(self.outputs, self.expected(images), found, strict=True):
            if one.shape != other.shape:
                raise JobFailed(f"The file gives {name} of another shape than {self.run} does in torch: {ELSE}")
            pairs = [(one, other, float(one.abs().max()))]
            if name == "logits":
                pairs.append((self._scores(one), self._scores(other), 1.0))
            for before, after, scale in pairs:
                difference = float((before - after).abs().max()) / (scale or 1.0)
                if not difference <= CLOSE:
                    raise JobFailed(
                        f"The {name} of the file differ from those that {self.run} gives in torch by {difference:.2g} "
                        f"on random images: {ELSE}"
                    )
                most = max(most, difference)
        return most

    def _scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.card["activation"] == "sigmoid" else logits.softmax(1)


ELSE = "choose another --format, or export where other versions of torch and onnxruntime are installed."


def of_run(run: str, licence: Licence) -> PortableModel:
    """Return the best model that a run has so far; ``licence`` has those of what it began with.

    Raises:
        WrongUse: see ``training_run.opened``; or its task has no place in a file.
    """
    opened = training_run.opened(run)
    if opened.task not in _TASKS:
        raise WrongUse(f"{run} was trained for {opened.task}, which has no place in a file: name another run.")
    assert opened.weights.file is not None
    tensors = opened.trainable.module.state_dict()  # before a task's function takes the head away
    module, outputs, card = _TASKS[opened.task](opened)
    return PortableModel(
        run=run,
        name=opened.trainable.name,
        task=opened.task,
        module=module.eval(),
        outputs=outputs,
        transform=opened.transform,
        card={**card, **preprocessing(opened.transform)},
        about=training_run.about(opened.weights.file),
        licence=licence,
        tensors=tensors,
    )


class LogitsAndVectors(nn.Module):
    """A classifier and the same up to its head, of the same tensors."""

    def __init__(self, classifier: nn.Module, pooled: nn.Module) -> None:
        super().__init__()
        self.pooled, self.classifier = pooled, classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, classes) and vectors (B, dim) of (B, 3, H, W) images."""
        vector = self.pooled(images)
        return self.classifier(images), vector


class VectorsAlone(nn.Module):
    """A module with one output."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Return the output for (B, 3, H, W) images."""
        return (self.module(images),)


Made = tuple[nn.Module, tuple[str, ...], dict[str, Any]]


def _classifier(opened: OpenedRun) -> Made:
    trained = opened.trainable
    tensors: dict[int, Any] = {id(one): one for one in (*trained.module.parameters(), *trained.module.buffers())}
    pooled = trained.pooled(copy.deepcopy(trained.module, tensors))
    head = files.head(opened.weights)
    card = {
        "task": "classify",
        "output": "logits",
        "outputs": {"logits": "logits", "vector": "vector"},
        "labels": list(head.labels),
        "activation": head.activation,
    }
    return LogitsAndVectors(trained.module, pooled), ("logits", "vector"), card


def _autoencoder(opened: OpenedRun) -> Made:
    trained = opened.trainable
    module = VectorsAlone(trained.pooled(trained.module))
    return module, ("vector",), {"task": "embed", "output": "vector", "outputs": {"vector": "vector"}}


_TASKS: dict[str, Callable[[OpenedRun], Made]] = {"classify": _classifier, "autoencoder": _autoencoder}


def preprocessing(transform: Transform) -> dict[str, Any]:
    """Return how images reach a model in the words of a card."""
    assert transform.size is not None
    if transform.fit not in ("short", "exact"):
        raise WrongUse("The images of this run are prepared in a way that a file cannot tell: name another run.")
    how: dict[str, Any] = {"resize": "squash"}
    if transform.fit == "short":
        how = {"resize": "crop", "short": transform.resize}
    return {
        "size": list(transform.size),
        **how,
        "interpolation": transform.interpolation,
        "channels": "RGB",
        "layout": "NCHW",
        "scale": 1,
        "mean": list(transform.mean),
        "std": list(transform.std),
    }


def _text(value: Any) -> str:
    found = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", found)
