"""A model that is about to be trained, or that was: the module with the head that was asked for, how it sees images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import nn

from cvjobs.images.transform import Transform
from cvjobs.networks.weights import Weights


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """A module on the CPU, from normalised (B, 3, H, W) floats to (B, classes) logits or, an autoencoder, to images.

    ``transform`` is how it is evaluated; ``weights`` are those that it begins with, all but the head;
    ``pooled`` turns the module into one that gives vectors: the features before the head, or the bottleneck;
    ``inherited`` is how many classes of the head begin with the weights' own rows of classes of their names, None where
    that was not asked for.
    """

    name: str
    transform: Transform
    weights: Weights
    module: nn.Module = field(repr=False)
    pooled: Callable[[nn.Module], nn.Module] = field(repr=False)
    inherited: int | None = None

    @property
    def parameters(self) -> int:
        """How many numbers the module has to learn, or has frozen."""
        return sum(parameter.numel() for parameter in self.module.parameters())


def resized(transform: Transform, side: int | None) -> Transform:
    """Return a preprocessing for square images of another side, which crops as much of them as before."""
    assert transform.size is not None
    if side is None or transform.size == (side, side):
        return transform
    return replace(transform, size=(side, side), resize=round(transform.resize * side / min(transform.size)))
