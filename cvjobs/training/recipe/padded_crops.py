"""Square crops of pictures and their masks at a random scale, as torchvision's reference trains segmenters.

A crop may be larger than its picture: then the rest of it is black, and void in the mask. Nothing is squashed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from numpy.typing import NDArray
from torch import Tensor

from cvjobs.training.recipe.crops import between
from cvjobs.training.recipe.recipe import Recipe
from cvjobs.training.recipe.whole_crops import PackedPictures, PictureBoxes

JITTER = (0.5, 2.0)  # of the scale, without another one; the reference's
VOID = -1  # the class of a mask where nothing is known


def padded_boxes(
    recipe: Recipe, drawn: Tensor, flips: Tensor, heights: Tensor, widths: Tensor, size: int
) -> PictureBoxes:
    """Return a square box of each picture, which may reach beyond it.

    At scale 1 its side is the picture's shorter one, or ``size`` of smaller pictures, which are never enlarged in
    validation either; at scale 2 it is half of that.

    Args:
        recipe: ``scale_jitter`` and the flips of it.
        drawn: Random numbers (N, k) from 0 to 1, of which three are used.
        flips: Random numbers (N, 2) from 0 to 1.
        heights: Of the pictures, int64 (N,).
        widths: The same.
        size: The side of the crops in pixels.
    """
    low, most = recipe.scale_jitter or JITTER
    short = torch.minimum(heights, widths).clamp(min=size).double()
    side = (short / between(drawn[:, 0].double(), low, most)).round().clamp(min=1).long()
    top = ((heights - side) * drawn[:, -2].double()).round().long()
    left = ((widths - side) * drawn[:, -1].double()).round().long()
    return PictureBoxes(
        edges=torch.stack([top, top + side, left, left + side], 1),
        mirrored=flips[:, 0] < recipe.hflip,
        upturned=flips[:, 1] < recipe.vflip,
    )


@dataclass(frozen=True)
class _Overlap:
    """The part of a box that is in its picture, and where it lies in the crop, each as rows and columns."""

    rows: slice
    columns: slice
    down: slice
    across: slice

    @property
    def size(self) -> tuple[int, int]:
        return self.down.stop - self.down.start, self.across.stop - self.across.start


def _overlaps(boxes: PictureBoxes, sizes: Sequence[tuple[int, int]], size: int) -> Iterator[_Overlap]:
    for (top, bottom, left, right), (height, width) in zip(boxes.edges.tolist(), sizes, strict=True):
        rows, down = _along(top, bottom, height, size)
        columns, across = _along(left, right, width, size)
        yield _Overlap(rows, columns, down, across)


def _along(start: int, end: int, length: int, size: int) -> tuple[slice, slice]:
    """Return of one side what is in the picture, and where that is in a crop of so many pixels; neither is empty."""
    first, last = max(start, 0), min(end, length)
    scale = size / (end - start)
    begin = min(round((first - start) * scale), size - 1)
    return slice(first, last), slice(begin, max(round((last - start) * scale), begin + 1))


def crop_padded(pictures: Sequence[Tensor] | PackedPictures, boxes: PictureBoxes, size: int) -> Tensor:
    """Return (N, 3, size, size) uint8 boxes of uint8 pictures (height, width, 3), where the pictures are."""
    each = _unpacked(pictures) if isinstance(pictures, PackedPictures) else pictures
    sizes = [(picture.shape[0], picture.shape[1]) for picture in each]
    device = each[0].device if each else torch.device("cpu")
    out = torch.zeros(len(each), 3, size, size, dtype=torch.uint8, device=device)
    for picture, place, part in zip(each, out, _overlaps(boxes, sizes, size), strict=True):
        box = picture[part.rows, part.columns].permute(2, 0, 1)[None]
        if device.type != "cpu":
            box = box.float()
        made = F.interpolate(box, size=part.size, mode="bilinear", antialias=True)[0]
        place[:, part.down, part.across] = made if made.dtype == torch.uint8 else made.round().byte()
    return _turned(out, boxes)


def _unpacked(pictures: PackedPictures) -> list[Tensor]:
    return [
        pictures.pixels[start : start + 3 * height * width].view(height, width, 3)
        for start, height, width in pictures.places.tolist()
    ]


def crop_masks(masks: Sequence[NDArray[np.int16]], boxes: PictureBoxes, size: int) -> Tensor:
    """Return int16 (N, size, size) boxes of masks, each pixel the nearest one of its mask, on the CPU."""
    out = np.full((len(masks), size, size), VOID, np.int16)
    sizes = [(mask.shape[0], mask.shape[1]) for mask in masks]
    for mask, place, part in zip(masks, out, _overlaps(boxes, sizes, size), strict=True):
        rows = nearest(part.rows.start, part.rows.stop, part.size[0])
        columns = nearest(part.columns.start, part.columns.stop, part.size[1])
        place[part.down, part.across] = mask[rows[:, None], columns]
    return _turned(torch.from_numpy(out), boxes)


def nearest(start: int, end: int, count: int) -> NDArray[np.int64]:
    """Return which of the pixels from start to end is in the middle of each of ``count`` equal pieces."""
    return start + ((np.arange(count) + 0.5) * ((end - start) / count)).astype(np.int64)


def _turned(crops: Tensor, boxes: PictureBoxes) -> Tensor:
    mirrored, upturned = boxes.mirrored.to(crops.device), boxes.upturned.to(crops.device)
    crops[mirrored] = crops[mirrored].flip(-1)
    crops[upturned] = crops[upturned].flip(-2)
    return crops
