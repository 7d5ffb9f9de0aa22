"""Semantic segmenters by name, to be trained; see ``registry``, which finds their families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from cvjobs.common.errors import WrongUse
from cvjobs.networks import registry

if TYPE_CHECKING:
    from cvjobs.networks.trainable import Trainable


class TrainableSegmenters(Protocol):
    """What a family may also offer: semantic segmenters that can be trained."""

    def trainable_segmenter(
        self, name: str, weights: str, classes: int, side: int | None, seed: int, labels: Sequence[str]
    ) -> Trainable:
        """Return a segmenter for so many classes, the background among them; arguments and errors as ``trainable``."""


def trainable_segmenter(
    name: str,
    *,
    weights: str = "pretrained",
    classes: int,
    side: int | None = None,
    seed: int = 0,
    labels: Sequence[str] = (),
) -> Trainable:
    """Return the semantic segmenter of that name with a new head, to be trained on square crops of ``side`` pixels.

    The other arguments and what is raised are as for ``trainable``. The module's outputs in training are (B, n,
    classes, H, W) logits of n heads, the main one first, in evaluation (B, classes, h, w) of that.
    """
    family, model = registry.find(name, "segment")
    if not hasattr(family, "trainable_segmenter"):
        raise WrongUse(f"{name} cannot be trained: choose a segmenter of torchvision, such as fcn_resnet50.")
    return cast("TrainableSegmenters", family).trainable_segmenter(model, weights, classes, side, seed, labels)
