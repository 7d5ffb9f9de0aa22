"""Random boxes cut out of pictures of any size, brought to one size and flipped: torchvision's RandomResizedCrop.

On a CPU pictures are cut one by one where they lie; elsewhere all of a batch at once out of one run of bytes, by calls
whose number does not depend on that of the pictures and that wait for nothing. Both resample as torch's antialiased
bilinear ``interpolate`` does within the box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from cvjobs.training.recipe.crops import between
from cvjobs.training.recipe.recipe import Recipe

TRIES = 10  # boxes that are drawn until one fits, as torchvision's
NUMBERS = 2 * TRIES + 2  # random numbers of a box


@dataclass(frozen=True, kw_only=True)
class PackedPictures:
    """Pictures one behind the other: ``pixels`` uint8 (bytes,), and of each its first byte, height and width.

    ``places`` is int64 (N, 3); between pictures lie whole pixels, so that every first byte is a multiple of 3.
    """

    pixels: Tensor
    places: Tensor

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, which: slice) -> PackedPictures:
        return PackedPictures(pixels=self.pixels, places=self.places[which])


@dataclass(frozen=True, kw_only=True)
class PictureBoxes:
    """A box of each picture on the CPU: ``edges`` int64 (N, 4) are top, bottom, left and right in its pixels."""

    edges: Tensor
    mirrored: Tensor
    upturned: Tensor

    def some(self, rows: slice) -> PictureBoxes:
        """Return those of some pictures."""
        return PictureBoxes(edges=self.edges[rows], mirrored=self.mirrored[rows], upturned=self.upturned[rows])

    def packed(self, size: int) -> PackedBoxes:
        """Return the boxes as ``crop_packed`` takes them for a size."""
        high, wide = (int((self.edges[:, end] - self.edges[:, end - 1]).max()) for end in (1, 3))
        return PackedBoxes(
            edges=self.edges,
            turned=torch.stack([self.upturned, self.mirrored], 1),
            high=high,
            taps=(_taps(high, size), _taps(wide, size)),
        )


@dataclass(frozen=True, kw_only=True)
class PackedBoxes:
    """Boxes for a batch that is cut at once: the highest one's pixels, and how many mix down and across are known.

    ``turned`` (N, 2) tells of each whether it is upturned and whether it is mirrored.
    """

    edges: Tensor
    turned: Tensor
    high: int
    taps: tuple[int, int]


def picture_boxes(
    recipe: Recipe, drawn: Tensor, flips: Tensor, heights: Tensor, widths: Tensor, *, squashed: bool
) -> PictureBoxes:
    """Return the boxes of pictures, from random numbers (N, ``NUMBERS``) and (N, 2) from 0 to 1.

    A share of the area and proportions on a log scale are drawn until a box fits; where none does, it is the largest
    in the middle with proportions that are allowed. ``heights`` and ``widths`` are int64 (N,). With ``squashed`` the
    proportions are those of the picture as a square.
    """
    high, wide = (torch.ones(len(drawn), 1, dtype=torch.float64) if squashed else heights.double()[:, None],
                  torch.ones(len(drawn), 1, dtype=torch.float64) if squashed else widths.double()[:, None])  # fmt: skip
    low, most = recipe.ratio
    area = between(drawn[:, :TRIES].double(), *recipe.scale) * high * wide
    ratio = between(drawn[:, TRIES : 2 * TRIES].double(), math.log(low), math.log(most)).exp()
    across, down = (area * ratio).sqrt(), (area / ratio).sqrt()
    slack = 1e-9 if squashed else 0.5  # torchvision rounds to whole pixels before it looks
    fits = (across <= wide + slack) & (down <= high + slack)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    middle_across, middle_down = torch.minimum(wide, high * most), torch.minimum(high, wide / low)
    found = fits.gather(1, first)
    across = torch.where(found, across.gather(1, first), middle_across)
    down = torch.where(found, down.gather(1, first), middle_down)
    places = torch.where(found, drawn[:, 2 * TRIES :].double(), 0.5)
    top, bottom = _edges(heights, down / high, places[:, :1])
    left, right = _edges(widths, across / wide, places[:, 1:])
    return PictureBoxes(
        edges=torch.cat([top, bottom, left, right], 1),
        mirrored=flips[:, 0] < recipe.hflip,
        upturned=flips[:, 1] < recipe.vflip,
    )


def _edges(sides: Tensor, shares: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return where a share of each side begins and ends in whole pixels, (N, 1) each, at a place in what is left."""
    sides = sides.double()[:, None]
    long = torch.minimum((shares * sides).round().clamp(min=1), sides)
    start = ((sides - long) * places).round()
    return start.long(), (start + long).long()


def crop_pictures(pictures: Sequence[Tensor], boxes: PictureBoxes, size: int) -> Tensor:
    """Return (N, 3, size, size) uint8 boxes of uint8 pictures (height, width, 3), on the CPU."""
    out = torch.empty(len(pictures), 3, size, size, dtype=torch.uint8)
    for picture, place, (top, bottom, left, right) in zip(pictures, out, boxes.edges.tolist(), strict=True):
        box = picture[top:bottom, left:right].permute(2, 0, 1)[None]
        place.copy_(F.interpolate(box, size=(size, size), mode="bilinear", antialias=True)[0])
    out[boxes.mirrored] = out[boxes.mirrored].flip(3)
    out[boxes.upturned] = out[boxes.upturned].flip(2)
    return out


def crop_packed(pictures: PackedPictures, boxes: PackedBoxes, size: int) -> Tensor:
    """Return (N, 3, size, size) float32 boxes of pictures, from 0 to 255, all on the device of the pictures."""
    pixels, count = pictures.pixels.view(-1, 3), len(pictures)
    first, width = pictures.places[:, 0, None] // 3, pictures.places[:, 2, None]
    top, bottom, left, right = boxes.edges.unsqueeze(2).unbind(1)
    rows, down = _mixed(bottom - top, boxes.turned[:, :1], size, boxes.taps[0])
    columns, across = _mixed(right - left, boxes.turned[:, 1:], size, boxes.taps[1])
    lines = torch.minimum(torch.arange(boxes.high, device=pixels.device), bottom - top - 1)
    starts = (first + (top + lines) * width + left)[:, :, None]
    wide = torch.zeros(count, boxes.high, size, 3, device=pixels.device)
    for tap in range(boxes.taps[1]):
        places = (starts + columns[:, None, :, tap]).view(-1)
        wide.addcmul_(pixels.index_select(0, places).view(wide.shape), across[:, None, :, tap, None])
    wide = wide.round_().byte().view(count * boxes.high, size * 3)  # as torch does between the two passes
    above = torch.arange(count, device=pixels.device)[:, None] * boxes.high
    out = torch.zeros(count, size, size, 3, device=pixels.device)
    for tap in range(boxes.taps[0]):
        places = (above + rows[:, :, tap]).view(-1)
        out.addcmul_(wide.index_select(0, places).view(out.shape), down[:, :, tap, None, None])
    return out.permute(0, 3, 1, 2)


def _taps(side: int, size: int) -> int:
    """Return how many pixels mix into one where a side becomes ``size``, at most."""
    return min(2 * math.ceil(max(side / size, 1.0)) + 1, side)


def _mixed(sides: Tensor, turned: Tensor, size: int, taps: int) -> tuple[Tensor, Tensor]:
    """Return which pixels of each box become one, and the share of each, (N, size, taps) both; sides are (N, 1)."""
    at = torch.arange(size, device=sides.device)
    at = torch.where(turned, size - 1 - at, at)
    scale = sides / size
    reach = scale.clamp(min=1.0)
    centre = scale * (at + 0.5)
    start = (centre - reach + 0.5).long().clamp(min=0)
    which = start[:, :, None] + torch.arange(taps, device=sides.device)
    share = (1 - (which - centre[:, :, None] + 0.5).abs() / reach[:, :, None]).clamp(min=0)
    share = share * (which < sides[:, :, None])
    return torch.minimum(which, sides[:, :, None] - 1), share / share.sum(2, keepdim=True)
