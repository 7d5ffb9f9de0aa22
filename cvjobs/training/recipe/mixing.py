"""Mixup and cutmix: every image with a part of another of its batch, and the shares of both in its target."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cvjobs.training.recipe.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Mix:
    """How a batch is mixed: each image with its partner (N,), int64, of which it keeps a share ``own``.

    ``box`` is the top, bottom, left and right in pixels of what comes from the partner, None where images are added.
    """

    partners: Tensor
    own: float
    box: tuple[int, int, int, int] | None


def draw(images: int, side: int, recipe: Recipe, generator: torch.Generator) -> Mix | None:
    """Return how so many images of a side in pixels are mixed, None where a recipe does not mix.

    One share is drawn for the whole batch. ``generator`` is on the CPU; everything random comes from it.
    """
    if not recipe.mixup and not recipe.cutmix:
        return None
    partners = torch.randperm(images, generator=generator)
    cut = bool(torch.rand((), generator=generator) < 0.5) if recipe.mixup and recipe.cutmix else bool(recipe.cutmix)
    own = _beta(recipe.cutmix if cut else recipe.mixup, generator)
    if not cut:
        return Mix(partners=partners, own=own, box=None)
    box = top, bottom, left, right = _box(own, side, generator)
    return Mix(partners=partners, own=1 - (bottom - top) * (right - left) / (side * side), box=box)


def mixed(images: Tensor, targets: Tensor, classes: int, mix: Mix | None) -> tuple[Tensor, Tensor]:
    """Return mixed images, and targets as shares of each class, (N, C) float32; without a mix, all as it is.

    Mixup (Zhang et al. 2018) adds the images, cutmix (Yun et al. 2019) puts a box of one into the other.

    Args:
        images: (N, 3, S, S) floats.
        targets: (N,) class numbers or (N, C) shares, on the device of the images, as the partners.
        classes: C.
        mix: As ``draw`` returns it for N and S.
    """
    if mix is None:
        return images, targets
    shares = shares_of(targets, classes)
    if mix.box is None:
        images = torch.lerp(images[mix.partners], images, mix.own)
    else:
        top, bottom, left, right = mix.box
        others = images[:, :, top:bottom, left:right][mix.partners]
        images = images.clone()
        images[:, :, top:bottom, left:right] = others
    return images, torch.lerp(shares[mix.partners], shares, mix.own)


def shares_of(targets: Tensor, classes: int) -> Tensor:
    """Return (N,) class numbers as shares of each class, (N, C) float32; such shares as they are.

    ``torch.nn.functional.one_hot`` would look at the numbers, for which a device has to be waited for.
    """
    if targets.ndim == 2:
        return targets.float()
    return (targets[:, None] == torch.arange(classes, device=targets.device)).float()


def _box(own: float, side: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Return a box of the share that is not an image's own."""
    length = math.sqrt(1 - own) * side
    down, across = torch.rand(2, generator=generator).tolist()
    return (*_clipped(down * side, length, side), *_clipped(across * side, length, side))


def _clipped(middle: float, length: float, limit: int) -> tuple[int, int]:
    return max(round(middle - length / 2), 0), min(round(middle + length / 2), limit)


def _beta(alpha: float, generator: torch.Generator) -> float:
    """Draw from Beta(alpha, alpha), of the share and its rest the larger: an image is mostly itself."""
    import numpy as np

    seed = int(torch.randint(2**62, (), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    return max(share, 1 - share)
