"""Mosaics and mixup of pictures with boxes: canvases of four pictures around a centre, and canvases that are blended.

The other pictures are of the same part of a step, which its images are read for anyway; which, and all else that is
random, follows from the place of the canvas in the order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cvjobs.training.recipe.canvases import NUMBERS, CanvasAugment, CanvasChanges, Canvases, unpacked
from cvjobs.training.recipe.crops import between
from cvjobs.training.recipe.recipe import Recipe
from cvjobs.training.recipe.whole_crops import PackedPictures

TILES = 4
CENTRE = (0.25, 0.75)  # where the centre of a mosaic is, as a share of the side
VISIBLE = 0.2  # the share of a blend from which on its objects are learnt
_CLOSING = 10  # the last epochs, one of so many, have no mosaics
_KIND = TILES * NUMBERS  # the column of the random number that tells whether a canvas is a mosaic
_CENTRE = _KIND + 1
_OTHERS = _CENTRE + 2
_BLEND = _OTHERS + TILES - 1


def closed(recipe: Recipe, epoch: int) -> bool:
    """Return whether an epoch, from 0, has no mosaics: it is one of the last tenth, but not the only one."""
    return epoch >= recipe.epochs - min(math.ceil(recipe.epochs / _CLOSING), recipe.epochs - 1)


@dataclass(frozen=True, kw_only=True)
class MosaicCanvases:
    """Canvases (N, 3, H, W) with T pictures on them in all; see ``MosaicChanges``."""

    images: Tensor
    changes: MosaicChanges

    def moved(self, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the boxes on each canvas in its pixels, and their labels; see ``Canvases.moved``."""
        changes, count, most = self.changes, *boxes.shape[:2]
        tiles, (down, across) = changes.tiles, changes.offsets.float().unbind(1)
        placed = Canvases(images=self.images, places=tiles.places, ends=tiles.sizes.flip(1).float())
        moved, named = placed.moved(boxes[changes.pictures], labels[changes.pictures])
        found = moved.new_zeros(count, changes.tiles_each, most, 4)
        found_labels = named.new_full((count, changes.tiles_each, most), -1)
        found[changes.canvas, changes.slot] = moved + torch.stack([across, down, across, down], 1)[:, None]
        found_labels[changes.canvas, changes.slot] = named
        found, found_labels = found.flatten(1, 2), found_labels.flatten(1, 2)
        if changes.partners is None or changes.own is None:
            return found, found_labels
        seen = (1 - changes.own >= VISIBLE)[:, None]
        others = torch.where(seen, found_labels[changes.partners], -1)
        return torch.cat([found, found[changes.partners]], 1), torch.cat([found_labels, others], 1)


@dataclass(frozen=True, kw_only=True)
class MosaicChanges:
    """What is done for N canvases with T pictures on them.

    ``tiles`` is what is seen of each of the T; ``pictures`` (T,) are their numbers among the N of the part, ``canvas``
    (T,) where they are, as which of its ``tiles_each`` at most (``slot``), and ``offsets`` (T, 2) the row and column of
    their first pixel. ``sides`` are the height and width of canvases. Each canvas keeps its share ``own`` (N,) where it
    is blended with another, ``partners`` (N,); both are None where none is.
    """

    tiles: CanvasChanges
    pictures: Tensor
    canvas: Tensor
    slot: Tensor
    offsets: Tensor
    tiles_each: int
    sides: tuple[int, int]
    partners: Tensor | None
    own: Tensor | None


@dataclass(frozen=True, kw_only=True)
class SettledMosaics:
    """Many pictures, of which those of each part of a step make its canvases."""

    augment: MosaicAugment
    drawn: Tensor
    heights: Tensor
    widths: Tensor

    def changes(self, rows: slice) -> MosaicChanges:
        """Return what is done to the pictures of a part of a step."""
        return self.augment.of(self.drawn[rows], self.heights[rows], self.widths[rows])


class MosaicAugment:
    """The augmentation of a recipe with mosaics or mixup for pictures with boxes; see ``CanvasAugment``."""

    def __init__(self, canvases: CanvasAugment, recipe: Recipe, epoch: int) -> None:
        """Prepare for an epoch, from 0; ``canvases`` is what is done to each picture."""
        self._canvases, self._recipe, self.size = canvases, recipe, canvases.size
        self._share = 0.0 if closed(recipe, epoch) else recipe.mosaic
        self.numbers = _BLEND + 2

    def drawn(self, images: int, generator: torch.Generator) -> Tensor:
        """See ``Augment``."""
        return torch.rand(images, self.numbers, generator=generator)

    def settled(self, drawn: Tensor, height: int | Tensor, width: int | Tensor) -> SettledMosaics:
        """See ``Augment``."""
        heights, widths = (torch.as_tensor(side).expand(len(drawn)) for side in (height, width))
        return SettledMosaics(augment=self, drawn=drawn, heights=heights, widths=widths)

    def of(self, drawn: Tensor, heights: Tensor, widths: Tensor) -> MosaicChanges:
        """Return what is done to pictures (N,), of random numbers (N, ``numbers``)."""
        count = len(drawn)
        mosaic = drawn[:, _KIND] < self._share
        # Of all slots of all canvases those that are used: the first, and of mosaics all four.
        used = torch.cat([torch.ones(count, 1, dtype=torch.bool), mosaic[:, None].expand(-1, TILES - 1)], 1)
        canvas, slot = used.nonzero().unbind(1)
        others = (drawn[:, _OTHERS:_BLEND].double() * count).long().clamp(max=count - 1)
        pictures = torch.cat([torch.arange(count)[:, None], others], 1)[canvas, slot]
        numbers = drawn[:, :_KIND].view(count, TILES, NUMBERS)[canvas, slot]
        # The middle of a mosaic, beside which its pictures are; a picture alone is right of and below the corner.
        middle = (between(drawn[:, _CENTRE:_OTHERS].double(), *CENTRE) * self.size).round().long() * mosaic[:, None]
        at = middle[canvas]
        after = torch.stack([slot >= TILES // 2, slot % 2 == 1], 1) | ~mosaic[canvas, None]
        most = torch.where(after, self.size - at, at)
        tiles = self._canvases.within(numbers, (heights[pictures], widths[pictures]), (most[:, 0], most[:, 1]))
        whole = bool(mosaic.any())
        high, wide = (self.size, self.size) if whole else self._canvases.sides(tiles)
        partners, own = self._blended(drawn[:, _BLEND:])
        return MosaicChanges(
            tiles=tiles,
            pictures=pictures,
            canvas=canvas,
            slot=slot,
            offsets=torch.where(after, at, at - tiles.sizes),
            tiles_each=TILES if whole else 1,
            sides=(high, wide),
            partners=partners,
            own=own,
        )

    def _blended(self, drawn: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Return the partner of each canvas and its own share, the larger one of Beta(alpha, alpha) and the rest."""
        if not self._recipe.mixup:
            return None, None
        import numpy as np

        alpha, count = self._recipe.mixup, len(drawn)
        partners = (drawn[:, 0].double() * count).long().clamp(max=count - 1)
        seeds = (drawn[:, 1].double() * 2**24).long().tolist()  # all that there is in a float32
        shares = torch.tensor([np.random.default_rng(seed).beta(alpha, alpha) for seed in seeds])
        return partners, torch.maximum(shares, 1 - shares).float()

    def __call__(self, images: Sequence[Tensor] | PackedPictures, changes: MosaicChanges) -> MosaicCanvases:
        """Return the pictures on their canvases; see ``CanvasAugment``."""
        pictures = unpacked(images)
        several = [pictures[number] for number in changes.pictures.tolist()]
        canvases = torch.zeros(len(pictures), 3, *changes.sides, device=changes.pictures.device)
        places = zip(changes.canvas.tolist(), changes.offsets.tolist(), strict=True)
        for (canvas, (down, across)), seen in zip(places, self._canvases.seen(several, changes.tiles), strict=True):
            canvases[canvas, :, down : down + seen.shape[1], across : across + seen.shape[2]] = seen
        if changes.partners is not None and changes.own is not None:
            canvases = torch.lerp(canvases[changes.partners], canvases, changes.own.view(-1, 1, 1, 1))
        return MosaicCanvases(images=canvases, changes=changes)
