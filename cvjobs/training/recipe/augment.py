"""Training images as a network takes them: batches cropped, flipped and changed at random on the device they are on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor
from torchvision.transforms import v2

from cvjobs.training.recipe.recipe import Policy, Recipe

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
    """The augmentation of a recipe, at one size."""

    def __init__(self, recipe: Recipe, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        """Prepare for a side in pixels, and a mean and deviation of each channel of pixels from 0 to 1."""
        self._recipe = recipe
        self._size = size
        self._scale = 1 / (255 * torch.tensor(std).view(3, 1))
        self._shift = -(torch.tensor(mean) / torch.tensor(std)).view(3, 1)
        self._policy = _policy(recipe.aa)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return (N, 3, size, size) normalised float32 images of (N, 3, H, W) uint8 ones.

        The order is policy, crop, flips, colour, normalisation, erasing. Everything random comes from the generator,
        which is on the CPU; a policy sets the default generators for its duration, so only one thread may augment.
        """
        recipe = self._recipe
        if self._policy is not None:
            images = _each(images, self._policy, generator)
        images = _cropped(images, recipe, self._size, generator).float()
        pixels = self._normalised(images, generator).view(images.shape)
        if recipe.erasing:
            pixels.mul_(_kept(len(pixels), self._size, recipe.erasing, generator).to(pixels.device))
        return pixels

    def _normalised(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return normalised (N, 3, size × size) pixels; a change of colour goes into the same multiplication."""
        pixels = images.flatten(2)
        scale, shift = self._scale.to(images.device), self._shift.to(images.device)
        if not self._recipe.color_jitter:
            return torch.addcmul(shift, pixels, scale)
        matrix, level = _colour_changes(pixels.mean(2), self._recipe.color_jitter, generator)
        return torch.baddbmm(level * scale + shift, matrix * scale, pixels)


def _policy(name: Policy) -> Callable[[Tensor], Tensor] | None:
    policies: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
        "autoaugment": v2.AutoAugment,
        "randaugment": v2.RandAugment,
        "trivialaugment": v2.TrivialAugmentWide,
        "augmix": v2.AugMix,
    }
    return None if name == "none" else policies[name]()


def _each(images: Tensor, change: Callable[[Tensor], Tensor], generator: torch.Generator) -> Tensor:
    """Apply a transform of torchvision, which draws from the default generators, to every image by itself."""
    seed = int(torch.randint(2**62, (), generator=generator))
    on_cuda = images.device.type == "cuda"
    with torch.random.fork_rng(devices=[images.device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            torch.cuda.default_generators[images.device.index].manual_seed(seed)
        return torch.stack([change(image) for image in images])


def _cropped(images: Tensor, recipe: Recipe, size: int, generator: torch.Generator) -> Tensor:
    """Cut a box out of every image, bring it to the size and flip it.

    The boxes are those of Inception (Szegedy et al. 2015): a share of the area, and proportions on a log scale; one
    that does not fit is as wide or as high as the image. The result is uint8 on a CPU and float32 elsewhere, both
    from 0 to 255.
    """
    count = len(images)
    height, width = images.shape[-2:]
    area = _uniform(count, *recipe.scale, generator)
    ratio = _uniform(count, math.log(recipe.ratio[0]), math.log(recipe.ratio[1]), generator).exp()
    boxes = Boxes(
        wide=(area * ratio * height / width).sqrt().clamp(max=1),
        high=(area / ratio * width / height).sqrt().clamp(max=1),
        across=_uniform(count, 0, 1, generator),
        down=_uniform(count, 0, 1, generator),
        mirrored=_chosen(count, recipe.hflip, generator),
        upturned=_chosen(count, recipe.vflip, generator),
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


def _colour_changes(means: Tensor, strength: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a (N, 3, 3) matrix and a (N, 3, 1) level that change each image's brightness, contrast and saturation.

    Each changes by up to a share ``strength``. ``means`` are the (N, 3) means of the channels, around whose grey the
    contrast changes. Nothing is clipped: a pixel may leave the range by as much.
    """
    bright, contrast, colour = (
        _uniform(len(means), 1 - strength, 1 + strength, generator).view(-1, 1, 1).to(means.device) for _ in range(3)
    )
    grey = means.new_tensor(_GREY).view(1, 1, 3)
    saturate = colour * torch.eye(3, device=means.device) + (1 - colour) * grey
    level = (1 - contrast) * bright * (grey @ means.unsqueeze(2))
    return contrast * bright * saturate, level.expand(-1, 3, 1)


def _kept(count: int, size: int, share: float, generator: torch.Generator) -> Tensor:
    """Return (N, 1, size, size) of ones, with a box of zeros in that share of the images."""
    area = _uniform(count, *_ERASED, generator)
    ratio = _uniform(count, math.log(_ERASED_RATIO[0]), math.log(_ERASED_RATIO[1]), generator).exp()
    high, wide = (area / ratio).sqrt().clamp(max=1), (area * ratio).sqrt().clamp(max=1)
    top, left = _uniform(count, 0, 1, generator) * (1 - high), _uniform(count, 0, 1, generator) * (1 - wide)
    chosen = _chosen(count, share, generator)
    centres = (torch.arange(size) + 0.5) / size
    rows = (centres >= top[:, None]) & (centres < (top + high)[:, None])
    columns = (centres >= left[:, None]) & (centres < (left + wide)[:, None])
    erased = chosen[:, None, None] & rows[:, :, None] & columns[:, None, :]
    return (~erased).float().unsqueeze(1)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _chosen(count: int, share: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) < share
