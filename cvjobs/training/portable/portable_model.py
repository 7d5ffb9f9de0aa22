"""A run's model for other programs: its module, what its outputs are called, and what its file says of it.

A file says the same words as the card that `onnx/FILE` reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cvjobs.common.errors import JobFailed
from cvjobs.images.transform import Transform
from cvjobs.networks.families.training_run import ABOUT
from cvjobs.networks.licences import Licence
from cvjobs.networks.torch_network import Normalizer
from cvjobs.training.portable import likeness

INPUT = "images"
LICENCE = "licence"
SAMPLE = 4  # images that a file is checked with
CLOSE = 1e-3  # of scores, and of the largest value of an output
PIXELS = 1e-3  # the share of a class map that may be of another class
# What JSON may hold as it is, and YAML, as which cards are read, may not.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


@dataclass(frozen=True, kw_only=True)
class PortableModel:
    """A module on the CPU from normalised float32 (B, 3, height, width) to tensors, one for each name in ``outputs``.

    ``sides`` are the (height, width) of the images that it is followed with, and those that its file is checked with;
    where there are several it takes any. ``most`` is how many it takes together, 0 for any number. ``own`` computes the
    same as the run's own command does it, None where that is the module.
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
    sides: tuple[tuple[int, int], ...]
    most: int = 0
    own: Callable[[Tensor], tuple[Tensor, ...]] | None = field(default=None, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) in pixels of its images, or of the squares that it was trained on."""
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

    @property
    def open(self) -> dict[int, str]:
        """The axes of the input that may have any length, with their names."""
        return {**({} if self.most else {0: "batch"}), **({2: "height", 3: "width"} if len(self.sides) > 1 else {})}

    def samples(self) -> list[Tensor]:
        """Return what a file is checked with: one image and several where it takes several, of all ``sides``."""
        several = SAMPLE if len(self.sides) == 1 else 2
        counts = (self.most,) if self.most else (1, several)
        return [self.sample(several, size)[:count] for size in self.sides for count in counts]

    def sample(self, count: int = SAMPLE, size: tuple[int, int] | None = None) -> Tensor:
        """Return random images as the module takes them: noise, smooth and rough, always the same."""
        made = torch.Generator().manual_seed(0)
        coarse = torch.rand(count, 3, 5, 5, generator=made)
        size = size or self.sides[0]
        smooth = nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=False)
        grain = torch.rand(count, 3, *size, generator=made)
        pixels = (255 * (0.7 * smooth + 0.3 * grain)).round()
        return Normalizer(self.transform, torch.device("cpu"), torch.float32)(pixels)

    def expected(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return what the run computes of images in torch; where it has ``own``, fewer boxes may be listed."""
        with torch.inference_mode():
            return tuple((self.own or self.module)(images))

    def compare(self, images: Tensor, found: Sequence[Tensor]) -> float:
        """Return by how much the outputs of a file differ from torch's: the largest share of an output's largest value.

        Raises:
            JobFailed: by more than ``CLOSE``, or where either is no number; more than ``PIXELS`` of a class map, or
                ``likeness.UNLIKE`` of the boxes, are others.
        """
        most, expected = 0.0, self.expected(images)
        if "boxes" in self.outputs:
            return self._compare_boxes(expected, found)
        for name, one, other in zip(self.outputs, expected, found, strict=True):
            if one.shape != other.shape:
                raise JobFailed(f"The file gives {name} of another shape than {self.run} does in torch: {ELSE}")
        for name, one, other in zip(self.outputs, expected, found, strict=True):
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
            if self.task == "segment":
                self._compare_maps(one.argmax(1), other.argmax(1))
        return most

    def _compare_maps(self, expected: Tensor, found: Tensor) -> None:
        unlike = float((expected != found).float().mean())
        if unlike > PIXELS:
            raise JobFailed(
                f"Of the pixels of random images {unlike:.1%} are of another class in the file than {self.run} says in "
                f"torch: {ELSE}"
            )

    def _compare_boxes(self, expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
        one, other = (likeness.ListedBoxes(**dict(zip(self.outputs, said, strict=True))) for said in (expected, found))
        most, unlike = likeness.compared(one, other)
        if unlike > likeness.UNLIKE:
            raise JobFailed(
                f"Of the boxes that {self.run} finds in torch on random images {unlike:.0%} are others in the file: "
                f"{ELSE}"
            )
        return most

    def _scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.card["activation"] == "sigmoid" else logits.softmax(1)


ELSE = "choose another --format, or export where other versions of torch and onnxruntime are installed."


def _text(value: Any) -> str:
    found = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", found)
