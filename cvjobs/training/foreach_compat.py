"""Torch's functions of many tensors at once, which its own optimizers use: one call instead of one a tensor."""

from __future__ import annotations

import torch
from torch import Tensor

VERSIONS = {"torch": ("2.14",)}


def lerp(tensors: list[Tensor], ends: list[Tensor], weight: float) -> None:
    """Move each tensor, in place, by a share of the way to the other one of its place."""
    torch._foreach_lerp_(tensors, ends, weight)
