"""Random boxes cut out of images, brought to one size and flipped: one by one on a CPU, in one resampling elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from cvjobs.training.recipe.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """A box of each image: its sides as shares of the image's, where it lies in what is left, and its flips; (N,)."""

    wide: Tensor
    high: Tensor
    across: Tensor
    down: Tensor
    mirrored: Tensor
    upturned: Tensor

    def some(self, rows: slice) -> Boxes:
        """Return those of some images."""
        return Boxes(**{name: values[rows] for name, values in vars(self).items()})


def boxes(recipe: Recipe, drawn: Tensor, flips: Tensor, height: int, width: int) -> Boxes:
    """Return the boxes of images of a size, from random numbers (N, 4) and (N, 2) from 0 to 1.

    They are those of Inception (Szegedy et al. 2015): a share of the area, and proportions on a log scale; one that
    does not fit is as wide or as high as the image.
    """
    area = between(drawn[:, 0], *recipe.scale)
    ratio = between(drawn[:, 1], math.log(recipe.ratio[0]), math.log(recipe.ratio[1])).exp()
    return Boxes(
        wide=(area * ratio * height / width).sqrt().clamp(max=1),
        high=(area / ratio * width / height).sqrt().clamp(max=1),
        across=drawn[:, 2],
        down=drawn[:, 3],
        mirrored=flips[:, 0] < recipe.hflip,
        upturned=flips[:, 1] < recipe.vflip,
    )


def crop_one_by_one(images: Tensor, boxes: Boxes, size: int) -> Tensor:
    """Return (N, 3, size, size) uint8 boxes of uint8 images, in whole pixels."""
    height, width = images.shape[-2:]
    wide, high = (boxes.wide * width).round().clamp(min=1), (boxes.high * height).round().clamp(min=1)
    left, top = ((width - wide) * boxes.across).round(), ((height - high) * boxes.down).round()
    corners = torch.stack([top, top + high, left, left + wide], 1).int().tolist()
    out = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
    for image, place, (y0, y1, x0, x1) in zip(images, out, corners, strict=True):
        box = image[None, :, y0:y1, x0:x1]
        place.copy_(F.interpolate(box, size=(size, size), mode="bilinear", antialias=True)[0])
    out[boxes.mirrored] = out[boxes.mirrored].flip(3)
    out[boxes.upturned] = out[boxes.upturned].flip(2)
    return out


def maps(boxes: Boxes) -> Tensor:
    """Return the affine map of each box, (N, 2, 3) float32, as ``crop_at_once`` takes them."""
    zero = torch.zeros(len(boxes.wide))
    across = torch.stack([boxes.wide * (1 - 2 * boxes.mirrored.float()), zero, _middle(boxes.across, boxes.wide)], 1)
    down = torch.stack([zero, boxes.high * (1 - 2 * boxes.upturned.float()), _middle(boxes.down, boxes.high)], 1)
    return torch.stack([across, down], 1)


def crop_at_once(images: Tensor, maps: Tensor, size: int) -> Tensor:
    """Return (N, 3, size, size) float32 boxes of uint8 images, from 0 to 255, in one resampling on their device."""
    grid = F.affine_grid(maps, [len(images), 3, size, size], align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def _middle(place: Tensor, side: Tensor) -> Tensor:
    """Return where the middle of a box lies, from -1 to 1."""
    return (2 * place - 1) * (1 - side)


def between(drawn: Tensor, low: float, high: float) -> Tensor:
    """Return random numbers from 0 to 1 as such from ``low`` to ``high``."""
    return low + (high - low) * drawn
