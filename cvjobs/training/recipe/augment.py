"""Training images as a network takes them: batches cropped, flipped and changed at random on the device they are on.

What is done to each image is settled on the CPU, for many at once (``Augment.settled``), and done where the images are
by calls that wait for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from cvjobs.training.recipe import crops, padded_crops, policies, whole_crops
from cvjobs.training.recipe.crops import Boxes, between
from cvjobs.training.recipe.policies import PolicyChanges, SettledPolicy
from cvjobs.training.recipe.recipe import Recipe
from cvjobs.training.recipe.whole_crops import PackedBoxes, PackedPictures, PictureBoxes

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
_ERASED = (0.02, 1 / 3)  # the share of the area of an erased box, and its proportions (Zhong et al. 2017)
_ERASED_RATIO = (0.3, 1 / 0.3)

Form = Literal["square", "whole", "squashed", "padded"]
"""What images are before they are cropped: of one size, whole, whole and cropped as if they were square, or whole and
cropped to squares that may reach beyond them."""


def generator(*position: int) -> torch.Generator:
    """Return a generator for one place of a run (its seed, step, worker, ...): the same there after any other draws.

    It is on the CPU, so that a run makes the same choices on every device.
    """
    import numpy as np

    # With its length, for a sequence is seeded as the same one without its last zeros.
    (seed,) = np.random.SeedSequence((len(position), *position)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(seed >> 1))


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is done to each image of a batch; what is None is not done.

    ``crop`` are boxes for a CPU and maps (see ``crops.maps``) elsewhere, of whole pictures ``PictureBoxes`` and
    ``PackedBoxes``; ``shares`` (N, 3) those of brightness,
    contrast and colour, ``erased`` (N, 4) the top, bottom, left and right of a box as shares of the sides: none where
    the bottom is above the top.
    """

    policy: PolicyChanges | None
    crop: Boxes | Tensor | PictureBoxes | PackedBoxes
    shares: Tensor | None
    erased: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What is done to each of many images, on the CPU; what is None is not done. See ``Changes``."""

    policy: SettledPolicy | None
    boxes: Boxes | PictureBoxes
    maps: Tensor | None
    shares: Tensor | None
    erased: Tensor | None
    packed: int | None = None  # the side that whole pictures are cropped to elsewhere than on a CPU

    def changes(self, rows: slice) -> Changes:
        """Return what is done to some of the images, as ``Augment`` takes it."""
        boxes = self.boxes.some(rows)
        crop: Boxes | Tensor | PictureBoxes | PackedBoxes = boxes if self.maps is None else self.maps[rows]
        if self.packed is not None and isinstance(boxes, PictureBoxes):
            crop = boxes.packed(self.packed)
        return Changes(
            policy=self.policy.changes(rows) if self.policy is not None else None,
            crop=crop,
            shares=self.shares[rows] if self.shares is not None else None,
            erased=self.erased[rows] if self.erased is not None else None,
        )


class Augmentation(Protocol):
    """What makes a network's images of training images; ``size`` is their side, see ``Augment``."""

    size: int

    def drawn(self, images: int, generator: torch.Generator) -> Tensor:
        """Return the random numbers of so many images, on the CPU."""

    def settled(self, drawn: Tensor, height: int | Tensor, width: int | Tensor) -> Any:
        """Return what is done to images of a size, or of sizes of their own; it has ``changes(rows)``."""

    def __call__(self, images: Any, changes: Any) -> Any:
        """Return what a task prepares for its network: images, or what holds them."""


class Augment:
    """The augmentation of a recipe, at one size on one device; an image needs so many random ``numbers``."""

    def __init__(
        self,
        recipe: Recipe,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        form: Form = "square",
    ) -> None:
        """Prepare for a side in pixels, and a mean and deviation of each channel of pixels from 0 to 1."""
        self._recipe, self.size, self._device, self._form = recipe, size, device, form
        self._scale = (1 / (255 * torch.tensor(std).view(3, 1))).to(device)
        self._shift = (-(torch.tensor(mean) / torch.tensor(std)).view(3, 1)).to(device)
        self._grey = torch.tensor(_GREY).view(1, 1, 3).to(device)
        self._eye = torch.eye(3).to(device)
        self._places = _Places(policies.numbers(recipe.aa), 4 if form == "square" else whole_crops.NUMBERS)
        self.numbers = self._places.numbers

    def drawn(self, images: int, generator: torch.Generator) -> Tensor:
        """Return the random numbers of so many images, (images, ``numbers``) float32 from 0 to 1, on the CPU."""
        return torch.rand(images, self.numbers, generator=generator)

    def settled(self, drawn: Tensor, height: int | Tensor, width: int | Tensor) -> Settled:
        """Return what is done to images of a size, or of sizes (N,) of their own.

        Everything random of an image is in its row of ``drawn``, which is as ``drawn`` returns it: it is the same on
        every device and whatever else is in the batch.
        """
        recipe, columns = self._recipe, self._places.of(drawn)
        policy = maps = None
        boxes: Boxes | PictureBoxes
        # One by one in whole pixels a CPU is three times as fast; a GPU would wait for thousands of small calls.
        elsewhere = self._device.type != "cpu"
        if isinstance(height, Tensor) and isinstance(width, Tensor):
            squashed = self._form == "squashed"
            if self._form == "padded":
                boxes = padded_crops.padded_boxes(recipe, columns.box, columns.flips, height, width, self.size)
            else:
                boxes = whole_crops.picture_boxes(recipe, columns.box, columns.flips, height, width, squashed=squashed)
            height = width = self.size  # for the policy, which comes behind the crop
        else:
            boxes = crops.boxes(recipe, columns.box, columns.flips, int(height), int(width))
            maps = crops.maps(boxes) if elsewhere else None
        if recipe.aa != "none":
            policy = policies.settled(recipe.aa, columns.policy, int(height), int(width))
        strength = recipe.color_jitter
        return Settled(
            policy=policy,
            boxes=boxes,
            maps=maps,
            shares=between(columns.colours, 1 - strength, 1 + strength) if strength else None,
            erased=_erased(columns.erased, recipe.erasing) if recipe.erasing else None,
            packed=self.size if elsewhere and isinstance(boxes, PictureBoxes) and self._form != "padded" else None,
        )

    def __call__(self, images: Tensor | Sequence[Tensor] | PackedPictures, changes: Changes) -> Tensor:
        """Return (N, 3, size, size) normalised float32 images, all on the device.

        Images are (N, 3, H, W) uint8, for which the order is policy, crop, flips, colour, normalisation, erasing; or
        whole pictures: packed, or (h, w, 3) uint8 each on a CPU, for which crop and flips come before the policy.
        """
        cut = self._cut(images, changes).float()
        pixels = self.normalised(cut, changes.shares).view(cut.shape)
        if changes.erased is not None:
            pixels.mul_(_kept(changes.erased, self.size))
        return pixels

    def _cut(self, images: Tensor | Sequence[Tensor] | PackedPictures, changes: Changes) -> Tensor:
        """Return images after the policy, the crop and the flips."""
        policy, crop = changes.policy, changes.crop
        if isinstance(images, Tensor):
            if policy is not None:
                images = policies.applied(images, policy)
            if isinstance(crop, Boxes):
                return crops.crop_one_by_one(images, crop, self.size)
            assert isinstance(crop, Tensor)
            return crops.crop_at_once(images, crop, self.size)
        if self._form == "padded":
            assert isinstance(crop, PictureBoxes)
            return padded_crops.crop_padded(images, crop, self.size)
        if isinstance(images, PackedPictures):
            assert isinstance(crop, PackedBoxes)
            cut = whole_crops.crop_packed(images, crop, self.size)
        else:
            assert isinstance(crop, PictureBoxes)
            cut = whole_crops.crop_pictures(images, crop, self.size)
        return (
            cut if policy is None else policies.applied(cut.round_().byte() if cut.is_floating_point() else cut, policy)
        )

    def normalised(self, images: Tensor, shares: Tensor | None) -> Tensor:
        """Return normalised (N, 3, size × size) pixels; a change of colour goes into the same multiplication."""
        pixels = images.flatten(2)
        if shares is None:
            return torch.addcmul(self._shift, pixels, self._scale)
        matrix, level = self._colour_changes(pixels.mean(2), shares)
        return torch.baddbmm(level * self._scale + self._shift, matrix * self._scale, pixels)

    def _colour_changes(self, means: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Return a (N, 3, 3) matrix and a (N, 3, 1) level that change brightness, contrast and saturation by shares.

        ``means`` are the (N, 3) means of the channels, around whose grey the contrast changes. Nothing is clipped: a
        pixel may leave the range by as much.
        """
        bright, contrast, colour = (share.view(-1, 1, 1) for share in shares.unbind(1))
        saturate = colour * self._eye + (1 - colour) * self._grey
        level = (1 - contrast) * bright * (self._grey @ means.unsqueeze(2))
        return contrast * bright * saturate, level.expand(-1, 3, 1)


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

    def __init__(self, policy: int, box: int) -> None:
        self._widths = {"box": box, "flips": 2, "colours": 3, "erased": 5, "policy": policy}
        self.numbers = sum(self._widths.values())

    def of(self, drawn: Tensor) -> _Columns:
        parts = torch.split(drawn, list(self._widths.values()), 1)
        return _Columns(**dict(zip(self._widths, parts, strict=True)))


def _erased(drawn: Tensor, share: float) -> Tensor:
    """Return a box of each image, see ``Changes``, with something in it in that share of them."""
    area = between(drawn[:, 0], *_ERASED)
    ratio = between(drawn[:, 1], math.log(_ERASED_RATIO[0]), math.log(_ERASED_RATIO[1])).exp()
    high, wide = (area / ratio).sqrt().clamp(max=1), (area * ratio).sqrt().clamp(max=1)
    top, left = drawn[:, 2] * (1 - high), drawn[:, 3] * (1 - wide)
    bottom = torch.where(drawn[:, 4] < share, top + high, -1.0)
    return torch.stack([top, bottom, left, left + wide], 1)


def _kept(erased: Tensor, size: int) -> Tensor:
    """Return (N, 1, size, size) of ones, with zeros in the erased boxes."""
    centres = (torch.arange(size, device=erased.device) + 0.5) / size
    top, bottom, left, right = erased.unsqueeze(2).unbind(1)
    rows = (centres >= top) & (centres < bottom)
    columns = (centres >= left) & (centres < right)
    return (~(rows[:, :, None] & columns[:, None, :])).float().unsqueeze(1)
