"""Pictures placed on canvases: scaled at random, cropped at random where they are larger, flipped, coloured.

Their proportions are kept, and so is what is needed to move the boxes of objects along. What is around a picture is 0
behind the normalisation, to its right and below, as it is where a detector looks at one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from cvjobs.training.recipe.augment import Augment
from cvjobs.training.recipe.crops import between
from cvjobs.training.recipe.recipe import Recipe
from cvjobs.training.recipe.whole_crops import PackedPictures

NUMBERS = 8  # random numbers of a picture: scale, place across and down, two flips, three shares of colour
LEAST = 1e-3  # pixels of a box's side


@dataclass(frozen=True, kw_only=True)
class Canvases:
    """Pictures on their canvases: ``images`` (N, 3, H, W) float32, and where each is (N, 6) in ``places``.

    A place is the width and the height of the whole picture in pixels of the canvas, its left and top edge there
    (negative where it is cropped), and whether it is mirrored and upturned (1 or 0), which is done to its part on the
    canvas alone; ``ends`` (N, 2) are the width and the height of that part.
    """

    images: Tensor
    places: Tensor
    ends: Tensor

    def moved(self, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes in pixels of the canvas, and their labels, -1 for those whose centres are not on it.

        Args:
            boxes: left, top, right and bottom in shares of the picture, (N, M, 4).
            labels: -1 where there is none, (N, M).
        """
        wide, high, left, top, mirrored, upturned = self.places.unsqueeze(2).unbind(1)
        right, bottom = self.ends.unsqueeze(2).unbind(1)
        x0, y0, x1, y1 = boxes.unbind(2)
        x0, x1, y0, y1 = left + x0 * wide, left + x1 * wide, top + y0 * high, top + y1 * high
        across, down = (x0 + x1) / 2, (y0 + y1) / 2
        kept = (across >= 0) & (across <= right) & (down >= 0) & (down <= bottom) & (labels >= 0)
        x0, x1 = (x.clamp(min=0).minimum(right) for x in (x0, x1))
        y0, y1 = (y.clamp(min=0).minimum(bottom) for y in (y0, y1))
        x0, x1 = torch.where(mirrored > 0, right - x1, x0), torch.where(mirrored > 0, right - x0, x1)
        y0, y1 = torch.where(upturned > 0, bottom - y1, y0), torch.where(upturned > 0, bottom - y0, y1)
        kept &= (x1 - x0 > LEAST) & (y1 - y0 > LEAST)
        return torch.stack([x0, y0, x1, y1], 2), torch.where(kept, labels, -1)


@dataclass(frozen=True, kw_only=True)
class CanvasChanges:
    """What is done to each picture of a batch.

    ``parts`` (N, 4) are seen, top, bottom, left and right in pixels of the picture, and have ``sizes`` on the canvas,
    height and width (N, 2); ``places`` are as in ``Canvases``, ``shares`` as in ``augment.Changes``.
    """

    parts: Tensor
    sizes: Tensor
    places: Tensor
    shares: Tensor | None


@dataclass(frozen=True, kw_only=True)
class SettledCanvases:
    """What is done to each of many pictures; see ``CanvasChanges``."""

    all: CanvasChanges

    def changes(self, rows: slice) -> CanvasChanges:
        """Return what is done to some of them."""
        every = self.all
        return CanvasChanges(
            parts=every.parts[rows],
            sizes=every.sizes[rows],
            places=every.places[rows],
            shares=None if every.shares is None else every.shares[rows],
        )


class CanvasAugment:
    """The augmentation of a recipe for pictures with boxes; see ``augment.Augment``, in whose place it stands."""

    def __init__(
        self,
        recipe: Recipe,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        step: int = 0,
    ) -> None:
        """Prepare for a side in pixels; where a picture's scale is 1, its longer side is as long as the canvas's.

        Canvases end where no picture of theirs goes on, at the next multiple of ``step``; those of 0 are squares.
        """
        self._recipe, self.size, self._device, self._step = recipe, size, device, step
        self._jitter = recipe.scale_jitter or (1.0, 1.0)
        self._colours = Augment(recipe, size, mean, std, device)
        self.numbers = NUMBERS

    def drawn(self, images: int, generator: torch.Generator) -> Tensor:
        """See ``Augment``."""
        return torch.rand(images, self.numbers, generator=generator)

    def settled(self, drawn: Tensor, height: int | Tensor, width: int | Tensor) -> SettledCanvases:
        """See ``Augment``; nothing is drawn of a jitter of 1:1 and of shares of 0."""
        high, wide, most = torch.as_tensor(height), torch.as_tensor(width), torch.tensor(self.size)
        return SettledCanvases(all=self.within(drawn, (high, wide), (most, most)))

    def within(self, drawn: Tensor, of: tuple[Tensor, Tensor], most: tuple[Tensor, Tensor]) -> CanvasChanges:
        """Return what is done to pictures of which no more is seen than has room.

        Args:
            drawn: random numbers, (N, ``NUMBERS``).
            of: the heights and the widths of the pictures, (N,) or the same for all.
            most: the height and the width that there is room for in pixels of the canvas, (N,) or the same for all.
        """
        high, wide = of[0].double(), of[1].double()
        scale = between(drawn[:, 0].double(), *self._jitter) * self.size / torch.maximum(high, wide)
        whole_high, whole_wide = ((side * scale).floor().clamp(min=1) for side in (high, wide))
        top, bottom = _part(high, whole_high, drawn[:, 2].double(), most[0])
        left, right = _part(wide, whole_wide, drawn[:, 1].double(), most[1])
        sizes = torch.stack([whole_high.minimum(most[0]), whole_wide.minimum(most[1])], 1).long()
        flips = (drawn[:, 3] < self._recipe.hflip, drawn[:, 4] < self._recipe.vflip)
        # Of the whole picture, in whole pixels of which the part was taken.
        stretch_y, stretch_x = sizes[:, 0] / (bottom - top), sizes[:, 1] / (right - left)
        places = [wide * stretch_x, high * stretch_y, -left * stretch_x, -top * stretch_y]
        strength = self._recipe.color_jitter
        return CanvasChanges(
            parts=torch.stack([top, bottom, left, right], 1),
            sizes=sizes,
            places=torch.stack([*places, *(flip.double() for flip in flips)], 1).float(),
            shares=between(drawn[:, 5:], 1 - strength, 1 + strength) if strength else None,
        )

    def __call__(self, images: Sequence[Tensor] | PackedPictures, changes: CanvasChanges) -> Canvases:
        """Return the pictures, uint8 (height, width, 3) each or packed, on their canvases, all on the device."""
        canvases = torch.zeros(len(changes.parts), 3, *self.sides(changes), device=self._device)
        for number, seen in enumerate(self.seen(unpacked(images), changes)):
            canvases[number, :, : seen.shape[1], : seen.shape[2]] = seen
        return Canvases(images=canvases, places=changes.places, ends=changes.sizes.flip(1).float())

    def seen(self, pictures: Sequence[Tensor], changes: CanvasChanges) -> Iterator[Tensor]:
        """Yield what is seen of each picture, as it is on the canvas, (3, height, width) float32."""
        sizes, flips = changes.sizes.tolist(), changes.places[:, 4:].tolist()
        parts = changes.parts.tolist()
        for number, picture in enumerate(pictures):
            (top, bottom, left, right), (high, wide), (mirrored, upturned) = parts[number], sizes[number], flips[number]
            part = picture[top:bottom, left:right].permute(2, 0, 1)[None].float()
            drawn = F.interpolate(part, size=(high, wide), mode="bilinear", antialias=True)
            shares = None if changes.shares is None else changes.shares[number : number + 1]
            drawn = self._colours.normalised(drawn, shares).view(drawn.shape)
            turned = [axis for axis, turn in ((3, mirrored), (2, upturned)) if turn]
            yield drawn.flip(turned)[0] if turned else drawn[0]

    def sides(self, changes: CanvasChanges) -> list[int]:
        """Return the height and the width of the canvases of some pictures."""
        if not self._step:
            return [self.size, self.size]
        longest: list[int] = changes.sizes.amax(0).tolist()
        return [min(-(-side // self._step) * self._step, self.size) for side in longest]


def _part(side: Tensor, whole: Tensor, place: Tensor, canvas: Tensor) -> tuple[Tensor, Tensor]:
    """Return where what is seen of a side begins and ends in whole pixels, where the side becomes ``whole`` ones."""
    seen = torch.minimum((side * canvas / whole).round().clamp(min=1), side)
    start = ((side - seen) * place).round()
    return start.long(), (start + seen).long()


def unpacked(pictures: Sequence[Tensor] | PackedPictures) -> Sequence[Tensor]:
    """Return pictures, uint8 (height, width, 3) each."""
    if not isinstance(pictures, PackedPictures):
        return pictures
    return [
        pictures.pixels[start : start + 3 * height * width].view(height, width, 3)
        for start, height, width in pictures.places.tolist()
    ]
