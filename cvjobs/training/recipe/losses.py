"""What a network is trained to lower: cross-entropy, focal and binary losses, weighted and adjusted by class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from cvjobs.common.errors import WrongUse
from cvjobs.training.recipe.mixing import shares_of
from cvjobs.training.recipe.recipe import ClassWeights, Recipe

_BETA = 0.999  # of the effective number of samples; Cui et al. 2019 take 0.9 to 0.9999


def build(recipe: Recipe, counts: Sequence[int], multilabel: bool) -> nn.Module:
    """Return the loss, a scalar, of (B, C) logits and their targets.

    The loss of a batch is the mean over its images with any weights, so that batches, workers and accumulated
    steps add up. Targets are (B,) class numbers or, where labels are several or mixed, (B, C) shares of each class.

    Args:
        recipe: ``loss``, ``smoothing``, ``focal_gamma``, ``class_weights`` and ``logit_adjustment`` of it.
        counts: The images of each class in the training data.
        multilabel: Whether an image has any number of the classes.

    Raises:
        WrongUse: the recipe's loss is for classes that exclude each other, and these do not.
    """
    kind = recipe.loss
    if kind == "auto":
        kind = "bce" if multilabel else "ce"
    if multilabel and kind == "ce":
        raise WrongUse("--loss ce is for images of one class each: use bce or focal where an image has several.")
    if multilabel and recipe.logit_adjustment:
        raise WrongUse("--logit-adjustment is for images of one class each: leave it out.")
    focal = recipe.focal_gamma if kind == "focal" else 0.0
    weights = class_weights(recipe.class_weights, counts)
    if multilabel or kind == "bce":
        return _Binary(weights, recipe.smoothing, focal, multilabel)
    return _Softmax(weights, recipe.smoothing, focal, recipe.logit_adjustment * log_frequencies(counts))


def class_weights(kind: ClassWeights, counts: Sequence[int]) -> Tensor:
    """Return a weight for each class, (C,) float32, whose mean over the training images is 1.

    ``inverse`` is the inverse frequency, ``effective`` the inverse of the effective number of samples of Cui et al.
    2019 (Class-Balanced Loss). A class without images counts as one with a single image.
    """
    images = torch.tensor(counts, dtype=torch.float64).clamp(min=1)
    if kind == "none":
        return torch.ones(len(counts))
    weights = 1 / images if kind == "inverse" else (1 - _BETA) / (1 - _BETA**images)
    return (weights * images.sum() / (weights * images).sum()).float()


def log_frequencies(counts: Sequence[int]) -> Tensor:
    """Return the log of each class's share of the images, (C,) float32 (logit adjustment, Menon et al. 2021)."""
    images = torch.tensor(counts, dtype=torch.float64).clamp(min=1)
    return (images / images.sum()).log().float()


class _Softmax(nn.Module):
    """Cross-entropy, focal where ``gamma`` is above 0 (Lin et al. 2017), of classes that exclude each other."""

    def __init__(self, weights: Tensor, smoothing: float, gamma: float, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("_weights", weights, persistent=False)
        self.register_buffer("_shift", shift, persistent=False)
        self._smoothing = smoothing
        self._gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        logs = F.log_softmax(logits.float() + self.get_buffer("_shift"), dim=1)
        shares = shares_of(targets, logits.shape[1])
        shares = shares * (1 - self._smoothing) + self._smoothing / logits.shape[1]
        if self._gamma:
            logs = _doubt(1 - logs.exp()) ** self._gamma * logs
        return -(self.get_buffer("_weights") * shares * logs).sum(1).mean()


class _Binary(nn.Module):
    """The mean over classes of each one's binary cross-entropy, focal where ``gamma`` is above 0."""

    def __init__(self, weights: Tensor, smoothing: float, gamma: float, multilabel: bool) -> None:
        super().__init__()
        self.register_buffer("_weights", weights, persistent=False)
        self._smoothing = smoothing
        self._gamma = gamma
        self._multilabel = multilabel

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits = logits.float()
        shares = shares_of(targets, logits.shape[1])
        towards = 0.5 if self._multilabel else 1 / logits.shape[1]
        shares = shares * (1 - self._smoothing) + self._smoothing * towards
        losses = F.binary_cross_entropy_with_logits(logits, shares, reduction="none")
        if self._gamma:
            losses = _doubt((shares - logits.sigmoid()).abs()) ** self._gamma * losses
        return (self.get_buffer("_weights") * losses).mean(1).mean()


def _doubt(chance: Tensor) -> Tensor:
    return chance.clamp(min=1e-6)  # at 0 the gradient of a power below 1 is infinite
