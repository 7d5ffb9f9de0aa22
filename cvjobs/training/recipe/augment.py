"""Training images as a network takes them: batches cropped, flipped and changed at random on the device they are on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from cvjobs.training.recipe import policies
from cvjobs.training.recipe.recipe import Recipe

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
_ERASED = (0.02, 1 / 3)  # the share of the area of an erased box, and its proportions (Zhong et al. 2017)
_ERASED_RATIO = (0.3, 1 / 0.3)


def generator(*position: int) -> torch.Generator:
    """Return a generator for one place of a run (its seed, step, worker, ...): the same there after any other draws.

    It is on the CPU, so that a run makes the same choices on every device.
    """
    import numpy as np

    # With its length, for a sequence is seeded as the same one without its last zeros.
    (seed,) = np.random.SeedSequence((len(position), *position)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(seed >> 1))


class Augment:
    """The augmentation of a recipe, at one size; an image needs so many random ``numbers``."""

    def __init__(self, recipe: Recipe, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        """Prepare for a side in pixels, and a mean and deviation of each channel of pixels from 0 to 1."""
        self._recipe = recipe
        self._size = size
        self._scale = 1 / (255 * torch.tensor(std).view(3, 1))
        self._shift = -(torch.tensor(mean) / torch.tensor(std)).view(3, 1)
        self._places = _Places(policies.numbers(recipe.aa))
        self.numbers = self._places.numbers

    def drawn(self, images: int, generator: torch.Generator) -> Tensor:
        """Return the random numbers of so many images, (images, ``numbers``) float32 from 0 to 1, on the CPU."""
        return torch.rand(images, self.numbers, generator=generator)

    def __call__(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Return (N, 3, size, size) normalised float32 images of (N, 3, H, W) uint8 ones.

        The order is policy, crop, flips, colour, normalisation, erasing. Everything random of an image is in its row of
        ``drawn``, which is as ``drawn`` returns it: it is the same on every device and whatever else is in the batch.
        """
        recipe, columns = self._recipe, self._places.of(drawn)
        if recipe.aa != "none":
            images = policies.applied(recipe.aa, images, columns.policy)
        images = _cropped(images, recipe, self._size, columns.box, columns.flips).float()
        pixels = self._normalised(images, columns.colours).view(images.shape)
        if recipe.erasing:
            pixels.mul_(_kept(columns.erased, self._size, recipe.erasing).to(pixels.device))
        return pixels

    def _normalised(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Return normalised (N, 3, size × size) pixels; a change of colour goes into the same multiplication."""
        pixels = images.flatten(2)
        scale, shift = self._scale.to(images.device), self._shift.to(images.device)
        if not self._recipe.color_jitter:
            return torch.addcmul(shift, pixels, scale)
        matrix, level = _colour_changes(pixels.mean(2), self._recipe.color_jitter, drawn)
        return torch.baddbmm(level * scale + shift, matrix * scale, pixels)


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """The random numbers of a batch by what they are for, each (N, some)."""

    box: Tensor
    flips: Tensor
    colours: Tensor
    erased: Tensor
    policy: Tensor


class _Places:
    """Where in an image's random numbers those of each kind are."""

    def __init__(self, policy: int) -> None:
        self._widths = {"box": 4, "flips": 2, "colours": 3, "erased": 5, "policy": policy}
        self.numbers = sum(self._widths.values())

    def of(self, drawn: Tensor) -> _Columns:
        parts = torch.split(drawn, list(self._widths.values()), 1)
        return _Columns(**dict(zip(self._widths, parts, strict=True)))


def _cropped(images: Tensor, recipe: Recipe, size: int, drawn: Tensor, flips: Tensor) -> Tensor:
    """Cut a box out of every image, bring it to the size and flip it.

    The boxes are those of Inception (Szegedy et al. 2015): a share of the area, and proportions on a log scale; one
    that does not fit is as wide or as high as the image. The result is uint8 on a CPU and float32 elsewhere, both
    from 0 to 255.
    """
    height, width = images.shape[-2:]
    area = _between(drawn[:, 0], *recipe.scale)
    ratio = _between(drawn[:, 1], math.log(recipe.ratio[0]), math.log(recipe.ratio[1])).exp()
    boxes = Boxes(
        wide=(area * ratio * height / width).sqrt().clamp(max=1),
        high=(area / ratio * width / height).sqrt().clamp(max=1),
        across=drawn[:, 2],
        down=drawn[:, 3],
        mirrored=flips[:, 0] < recipe.hflip,
        upturned=flips[:, 1] < recipe.vflip,
    )
    # One by one in whole pixels a CPU is three times as fast; a GPU would wait for the thousands of small calls.
    return crop_one_by_one(images, boxes, size) if images.device.type == "cpu" else crop_at_once(images, boxes, size)


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """A box of each image: its sides as shares of the image's, where it lies in what is left, and its flips; (N,)."""

    wide: Tensor
    high: Tensor
    across: Tensor
    down: Tensor
    mirrored: Tensor
    upturned: Tensor


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


def crop_at_once(images: Tensor, boxes: Boxes, size: int) -> Tensor:
    """Return (N, 3, size, size) float32 boxes of uint8 images, from 0 to 255, in one resampling on their device."""
    zero = torch.zeros(len(images))
    across = torch.stack([boxes.wide * (1 - 2 * boxes.mirrored.float()), zero, _middle(boxes.across, boxes.wide)], 1)
    down = torch.stack([zero, boxes.high * (1 - 2 * boxes.upturned.float()), _middle(boxes.down, boxes.high)], 1)
    maps = torch.stack([across, down], 1).to(images.device, non_blocking=True)
    grid = F.affine_grid(maps, [len(images), 3, size, size], align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def _middle(place: Tensor, side: Tensor) -> Tensor:
    """Return where the middle of a box lies, from -1 to 1."""
    return (2 * place - 1) * (1 - side)


def _colour_changes(means: Tensor, strength: float, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Return a (N, 3, 3) matrix and a (N, 3, 1) level that change each image's brightness, contrast and saturation.

    Each changes by up to a share ``strength``. ``means`` are the (N, 3) means of the channels, around whose grey the
    contrast changes. Nothing is clipped: a pixel may leave the range by as much.
    """
    shares = _between(drawn, 1 - strength, 1 + strength).to(means.device, non_blocking=True)
    bright, contrast, colour = (share.view(-1, 1, 1) for share in shares.unbind(1))
    grey = means.new_tensor(_GREY).view(1, 1, 3)
    saturate = colour * torch.eye(3, device=means.device) + (1 - colour) * grey
    level = (1 - contrast) * bright * (grey @ means.unsqueeze(2))
    return contrast * bright * saturate, level.expand(-1, 3, 1)


def _kept(drawn: Tensor, size: int, share: float) -> Tensor:
    """Return (N, 1, size, size) of ones, with a box of zeros in that share of the images."""
    area = _between(drawn[:, 0], *_ERASED)
    ratio = _between(drawn[:, 1], math.log(_ERASED_RATIO[0]), math.log(_ERASED_RATIO[1])).exp()
    high, wide = (area / ratio).sqrt().clamp(max=1), (area * ratio).sqrt().clamp(max=1)
    top, left = drawn[:, 2] * (1 - high), drawn[:, 3] * (1 - wide)
    chosen = drawn[:, 4] < share
    centres = (torch.arange(size) + 0.5) / size
    rows = (centres >= top[:, None]) & (centres < (top + high)[:, None])
    columns = (centres >= left[:, None]) & (centres < (left + wide)[:, None])
    erased = chosen[:, None, None] & rows[:, :, None] & columns[:, None, :]
    return (~erased).float().unsqueeze(1)


def _between(drawn: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * drawn
