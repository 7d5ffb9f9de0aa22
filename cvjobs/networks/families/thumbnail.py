"""`thumbnail/N`: the NxN thumbnail itself as the vector, for near-duplicates and for timing all but the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvjobs.common.errors import WrongUse
from cvjobs.images.transform import Transform

LARGEST = 256


def names(task: str) -> list[str]:
    """Return ``N``, which stands for 1 to 256, for the task ``embed``."""
    return ["N"] if task == "embed" else []


def embedder(name: str, weights: str, layer: str) -> ThumbnailModel:
    """Return the thumbnail of that side length as a model; there are no weights and no layers to choose."""
    if not (name.isascii() and name.isdigit() and 1 <= int(name) <= LARGEST):
        raise WrongUse(f"thumbnail/{name} is no model: write thumbnail/N with N from 1 to {LARGEST}, as thumbnail/8.")
    if weights != "pretrained" or layer:
        raise WrongUse(f"thumbnail/{name} has neither weights nor layers: leave out --weights and --layer.")
    return ThumbnailModel(side=int(name))


@dataclass(frozen=True)
class ThumbnailModel:
    """An embedder and its own network: pixels ÷ 255, flattened in the order height, width, channel."""

    side: int
    file: str = ""

    @property
    def name(self) -> str:
        """Return ``thumbnail/N``."""
        return f"thumbnail/{self.side}"

    @property
    def dim(self) -> int:
        """Return 3·N·N."""
        return 3 * self.side * self.side

    @property
    def transform(self) -> Transform:
        """Return the squash to NxN."""
        return Transform(size=(self.side, self.side), fit="exact", interpolation="bilinear")

    @property
    def facts(self) -> dict[str, str]:
        """Return the name, and that there are no weights."""
        return {"model": self.name, "weights": "none", "weights_sha256": "", "layer": "pixels"}

    def load(self, device: str, precision: str) -> ThumbnailModel:  # noqa: ARG002  (numpy on the CPU whatever is asked)
        """Return itself: there is nothing to load, and the result is exact on any device."""
        return self

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (B, 3·N·N) values in 0..1 of (B, N, N, 3) pixels."""
        return np.divide(pixels.reshape(len(pixels), self.dim), np.float32(255), dtype=np.float32)
