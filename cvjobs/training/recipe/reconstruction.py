"""What an autoencoder is trained to lower, and how good its pictures are; images are floats from 0 to 1."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from cvjobs.common.errors import WrongUse
from cvjobs.training.recipe.recipe import Loss

WINDOW = 11  # pixels of the side of SSIM's window (Wang et al. 2004)
BEST = 100.0  # decibels of a picture that is exact


def check(kind: Loss, side: int) -> None:
    """Raise WrongUse for a loss that is not about pictures, or not about ones of this side in pixels."""
    if kind not in ("auto", "mse", "l1", "ssim"):
        raise WrongUse(f"--loss {kind} is about classes: use mse, l1 or ssim with --task autoencoder.")
    if kind == "ssim" and side < WINDOW:
        raise WrongUse(f"--loss ssim looks at windows of {WINDOW} pixels: give --img-size at least {WINDOW}.")


def losses(kind: Loss, made: Tensor, wanted: Tensor) -> Tensor:
    """Return the loss of each of (N, 3, H, W) reconstructions, (N,); that of ``ssim`` is 1 less the similarity."""
    if kind == "ssim":
        return 1 - similarity(made, wanted)
    each = F.l1_loss(made, wanted, reduction="none") if kind == "l1" else F.mse_loss(made, wanted, reduction="none")
    return each.flatten(1).mean(1)


def similarity(made: Tensor, wanted: Tensor) -> Tensor:
    """Return the structural similarity of each pair of images, (N,), at most 1 (Wang et al. 2004)."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    with torch.autocast(made.device.type, enabled=False):  # variances are differences of squares
        found = structural_similarity_index_measure(
            made, wanted, data_range=1.0, reduction="none", kernel_size=WINDOW, sigma=1.5
        )
    assert isinstance(found, Tensor)
    return found


def noise_ratio(squared: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in decibels of mean squared errors, at most ``BEST``."""
    return (-10 * torch.log10(squared.clamp(min=math.pow(10, -BEST / 10)))).clamp(max=BEST)
