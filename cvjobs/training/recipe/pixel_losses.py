"""What a segmenter is trained to lower: cross-entropy, focal, Dice and Lovász over the pixels that are not void."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from cvjobs.common.errors import WrongUse
from cvjobs.training.recipe.padded_crops import VOID
from cvjobs.training.recipe.recipe import ClassWeights, Recipe

KINDS = ("auto", "ce", "focal", "dice", "lovasz")
BETA = 0.999  # of the effective number of samples (Cui et al. 2019)
AUXILIARY = 0.5  # of the auxiliary head's loss, as torchvision's reference has it


def check(recipe: Recipe) -> None:
    """Raise WrongUse for a loss that is none of pixels."""
    if recipe.loss not in KINDS:
        raise WrongUse(f"--loss {recipe.loss} is none of --task segment: choose one of {', '.join(KINDS)}.")


def class_weights(kind: ClassWeights, pixels: Sequence[int], images: int) -> Tensor | None:
    """Return a weight for each class, (C,) float32, whose mean over the training pixels is 1; None for none.

    ``inverse`` is the inverse of a class's pixels, ``effective`` that of the effective number of Cui et al. 2019, in
    which a class counts as many whole images as its pixels would fill.

    Args:
        kind: of the recipe.
        pixels: of each class in the masks that are trained on.
        images: how many there are.
    """
    if kind == "none":
        return None
    counts = torch.tensor(pixels, dtype=torch.float64)
    least = counts.clamp(min=1)
    filled = least * images / counts.sum().clamp(min=1)
    weights = 1 / least if kind == "inverse" else (1 - BETA) / (1 - BETA**filled)
    return (weights * counts.sum() / (weights * counts).sum()).float()


def of_heads(recipe: Recipe, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the loss, a scalar, of logits (B, heads, C, H, W) of the main head and perhaps an auxiliary one."""
    main = of_pixels(recipe, outputs[:, 0], targets, weights)
    if outputs.shape[1] == 1:
        return main
    return main + AUXILIARY * of_pixels(recipe, outputs[:, 1], targets, weights)


def of_pixels(recipe: Recipe, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the loss, a scalar, of float32 logits (B, C, H, W) and classes (B, H, W); 0 where all pixels are void.

    Dice and Lovász come beside the cross-entropy, without which they learn slowly at first; ``weights`` of the classes,
    (C,), whose mean over all pixels is 1, are the cross-entropy's and the focal loss's.
    """
    if weights is not None:
        each = F.cross_entropy(logits, targets, ignore_index=VOID, reduction="none")
        if recipe.loss == "focal":
            each = _focal(each, recipe.focal_gamma)
        summed = (each * weights[targets.clamp(min=0)]).sum()
    elif recipe.loss in ("auto", "ce", "dice", "lovasz"):
        summed = F.cross_entropy(logits, targets, ignore_index=VOID, reduction="sum")
    else:
        each = F.cross_entropy(logits, targets, ignore_index=VOID, reduction="none")
        summed = _focal(each, recipe.focal_gamma).sum()
    loss = summed / (targets != VOID).sum().clamp(min=1)
    if recipe.loss == "dice":
        return loss + dice(logits, targets)
    if recipe.loss == "lovasz":
        return loss + lovasz(logits, targets)
    return loss


def _focal(each: Tensor, gamma: float) -> Tensor:
    return (1 - (-each).exp()).clamp(min=1e-6) ** gamma * each


def dice(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - the mean Dice coefficient of the classes that the batch shows (Milletari et al. 2016)."""
    seen = (targets != VOID).unsqueeze(1)
    chances = logits.softmax(1) * seen
    truth = F.one_hot(targets.clamp(min=0), logits.shape[1]).permute(0, 3, 1, 2) * seen
    both, whole = (chances * truth).sum((0, 2, 3)), (chances + truth).sum((0, 2, 3))
    there = (truth.sum((0, 2, 3)) > 0).float()
    return 1 - (there * (2 * both / whole.clamp(min=1e-6))).sum() / there.sum().clamp(min=1)


def lovasz(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the Lovász extension of 1 - IoU, the mean over the classes that the batch shows (Berman et al. 2018)."""
    seen = targets != VOID
    chances = logits.softmax(1).permute(0, 2, 3, 1)[seen]
    truth = targets[seen]
    found = []
    for number in torch.bincount(truth, minlength=1).nonzero().flatten().tolist():
        own = (truth == number).float()
        errors, order = (own - chances[:, number]).abs().sort(descending=True)
        found.append((errors * _slope(own[order])).sum())
    return torch.stack(found).mean() if found else logits.sum() * 0


def _slope(truth: Tensor) -> Tensor:
    """Return how much the Jaccard loss grows with each pixel, (P,), the most wrong one first."""
    left = truth.sum() - truth.cumsum(0)
    jaccard = 1 - left / (truth.sum() + (1 - truth).cumsum(0))
    jaccard[1:] = jaccard[1:] - jaccard[:-1].clone()
    return jaccard
