"""Training images as a network takes them: batches cropped, flipped and changed at random on the device they are on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor
from torchvision.transforms import v2

from cvjobs.recipes.settings import Policy, Recipe

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
_ERASED = (0.02, 1 / 3)  # the share of the area of an erased box, and its proportions (Zhong et al. 2017)
_ERASED_RATIO = (0.3, 1 / 0.3)


def generator(*position: int) -> torch.Generator:
    """Return a generator for one place of a run (its seed, step, worker, ...): the same there whatever went before.

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
        self._mean = torch.tensor(mean).view(1, 3, 1, 1)
        self._std = torch.tensor(std).view(1, 3, 1, 1)
        self._policy = _policy(recipe.aa)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return (N, 3, size, size) normalised float32 images of (N, 3, H, W) uint8 ones.

        The order is policy, crop, flips, colour, normalisation, erasing. Everything random comes from the generator,
        which is on the CPU; a policy sets the default generators for its duration, so only one thread may augment.
        """
        recipe, device = self._recipe, images.device
        if self._policy is not None:
            images = _each(images, self._policy, generator)
        pixels = _cropped(images.float() / 255, recipe, self._size, generator)
        if recipe.color_jitter:
            pixels = _recoloured(pixels, recipe.color_jitter, generator)
        pixels = (pixels - self._mean.to(device)) / self._std.to(device)
        if recipe.erasing:
            pixels = pixels * _kept(len(pixels), self._size, recipe.erasing, generator).to(device)
        return pixels


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


def _cropped(pixels: Tensor, recipe: Recipe, size: int, generator: torch.Generator) -> Tensor:
    """Cut a box out of every image, bring it to the size and flip it, in one resampling.

    The boxes are those of Inception (Szegedy et al. 2015): a share of the area, and proportions on a log scale; one
    that does not fit is as wide or as high as the image.
    """
    count = len(pixels)
    height, width = pixels.shape[-2:]
    area = _uniform(count, *recipe.scale, generator)
    ratio = _uniform(count, math.log(recipe.ratio[0]), math.log(recipe.ratio[1]), generator).exp()
    wide = (area * ratio * height / width).sqrt().clamp(max=1)  # as shares of the image
    high = (area / ratio * width / height).sqrt().clamp(max=1)
    left, top = _uniform(count, -1, 1, generator) * (1 - wide), _uniform(count, -1, 1, generator) * (1 - high)
    mirrored = 1 - 2 * _chosen(count, recipe.hflip, generator).float()
    upturned = 1 - 2 * _chosen(count, recipe.vflip, generator).float()
    zero = torch.zeros(count)
    maps = torch.stack([torch.stack([wide * mirrored, zero, left], 1), torch.stack([zero, high * upturned, top], 1)], 1)
    grid = F.affine_grid(maps.to(pixels.device), [count, 3, size, size], align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def _recoloured(pixels: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast and saturation of every image by up to a share ``strength`` of each."""
    bright, contrast, colour = (
        _uniform(len(pixels), 1 - strength, 1 + strength, generator).view(-1, 1, 1, 1).to(pixels.device)
        for _ in range(3)
    )
    pixels = (pixels * bright).clamp(0, 1)
    grey = _grey(pixels)
    pixels = torch.lerp(grey.mean((2, 3), keepdim=True).expand_as(pixels), pixels, contrast).clamp(0, 1)
    return torch.lerp(_grey(pixels).expand_as(pixels), pixels, colour).clamp(0, 1)


def _grey(pixels: Tensor) -> Tensor:
    return (pixels * pixels.new_tensor(_GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)


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
