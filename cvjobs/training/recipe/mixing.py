"""Mixup and cutmix: every image with a part of another of its batch, and the shares of both in its target."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from cvjobs.training.recipe.recipe import Recipe


def mix(
    images: Tensor, targets: Tensor, classes: int, recipe: Recipe, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return mixed images, and targets as shares of each class, (N, C) float32; without either setting, all as it is.

    Mixup (Zhang et al. 2018) adds the images, cutmix (Yun et al. 2019) puts a box of one into the other. One share is
    drawn for the whole batch.

    Args:
        images: (N, 3, H, W) floats.
        targets: (N,) class numbers or (N, C) shares.
        classes: C.
        recipe: ``mixup`` and ``cutmix`` of it.
        generator: On the CPU; everything random comes from it.
    """
    if not recipe.mixup and not recipe.cutmix:
        return images, targets
    shares = targets.float() if targets.ndim == 2 else F.one_hot(targets, classes).float()
    other = torch.randperm(len(images), generator=generator).to(images.device)
    cut = bool(torch.rand((), generator=generator) < 0.5) if recipe.mixup and recipe.cutmix else bool(recipe.cutmix)
    own = _beta(recipe.cutmix if cut else recipe.mixup, generator)
    if cut:
        images, own = _with_box(images, images[other], own, generator)
    else:
        images = torch.lerp(images[other], images, own)
    return images, torch.lerp(shares[other], shares, own)


def _with_box(images: Tensor, others: Tensor, own: float, generator: torch.Generator) -> tuple[Tensor, float]:
    """Return the images with a box of the others, and the share of their own that is left."""
    height, width = images.shape[-2:]
    side = math.sqrt(1 - own)
    middle = torch.rand(2, generator=generator)
    top, bottom = _clipped(float(middle[0]) * height, side * height, height)
    left, right = _clipped(float(middle[1]) * width, side * width, width)
    images = images.clone()
    images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return images, 1 - (bottom - top) * (right - left) / (height * width)


def _clipped(middle: float, length: float, limit: int) -> tuple[int, int]:
    return max(round(middle - length / 2), 0), min(round(middle + length / 2), limit)


def _beta(alpha: float, generator: torch.Generator) -> float:
    """Draw from Beta(alpha, alpha), of the share and its rest the larger: an image is mostly itself."""
    import numpy as np

    seed = int(torch.randint(2**62, (), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    return max(share, 1 - share)
