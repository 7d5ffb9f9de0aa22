"""Looks at a picture: its tiles, resized as torchvision's transform does it, and again larger, smaller or mirrored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cvjobs.images.picture import Pixels
from cvjobs.networks.detection.settings import Rules

STRIDE = 32  # what torchvision pads sides to a multiple of


@dataclass(frozen=True)
class Tile:
    """A rectangle of a picture, in its pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class View:
    """A tile of the picture of that number, resized to ``size`` (height, width), perhaps mirrored, as a model sees it.

    ``canvas`` is the (height, width) of the tensor in whose upper left it is.
    """

    picture: int
    tile: Tile
    size: tuple[int, int]
    canvas: tuple[int, int]
    mirrored: bool = False

    def draw(self, pixels: Pixels, canvas: Tensor) -> None:
        """Put the view of a picture, uint8 (height, width, 3), into a float32 tensor (3, *canvas), 0..255."""
        tile = self.tile
        part = pixels[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        source = torch.from_numpy(part).to(canvas.device)
        height, width = self.size
        # Channel by channel, for a picture of floats has four times the bytes of its pixels.
        for channel in range(3):
            plane = source[None, None, :, :, channel].float()
            resized = torch.nn.functional.interpolate(plane, self.size, mode="bilinear", align_corners=False)[0, 0]
            canvas[channel, :height, :width] = resized.flip(1) if self.mirrored else resized

    def restored(self, boxes: Tensor) -> Tensor:
        """Return boxes (N, 4) of the view in pixels of the picture."""
        height, width = self.size
        x0, y0, x1, y1 = boxes.unbind(1)
        if self.mirrored:
            x0, x1 = width - x1, width - x0
        scale = torch.tensor([self.tile.width / width, self.tile.height / height] * 2, device=boxes.device)
        offset = torch.tensor([self.tile.left, self.tile.top] * 2, device=boxes.device)
        return torch.stack([x0, y0, x1, y1], 1) * scale + offset


def views(picture: int, height: int, width: int, rules: Rules) -> Iterator[View]:
    """Yield the looks at a picture of that size in pixels, tile by tile."""
    for tile in tiles(height, width, rules.tile, rules.overlap):
        for scale in rules.scales:
            size = resized(tile.height, tile.width, rules, scale)
            for mirrored in (False, True)[: 1 + rules.flip]:
                yield View(picture, tile, size, canvas(size, rules), mirrored)


def tiles(height: int, width: int, side: int, overlap: float) -> list[Tile]:
    """Return the squares of that side (pixels) which cover a picture, row by row; 0 takes it whole.

    Each shares ``overlap`` of its side with the next; the last ones of a row or column are moved back to end with
    the picture, and a picture that is smaller than a tile makes one that is.
    """
    if not side:
        return [Tile(0, 0, height, width)]
    return [
        Tile(top, left, min(side, height), min(side, width))
        for top in _starts(height, side, overlap)
        for left in _starts(width, side, overlap)
    ]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    step = max(round(side * (1 - overlap)), 1)
    return [*range(0, length - side, step), max(length - side, 0)]


def resized(height: int, width: int, rules: Rules, scale: float = 1.0) -> tuple[int, int]:
    """Return the size to which torchvision's ``GeneralizedRCNNTransform`` resizes, times ``scale``; at least 1."""
    if rules.fixed:
        return rules.short, rules.long
    factor = min(rules.short * scale / min(height, width), rules.long * scale / max(height, width))
    return max(math.floor(height * factor), 1), max(math.floor(width * factor), 1)


def canvas(size: tuple[int, int], rules: Rules) -> tuple[int, int]:
    """Return the size of the tensor that holds an image of that size."""
    if rules.fixed:
        return size
    return math.ceil(size[0] / STRIDE) * STRIDE, math.ceil(size[1] / STRIDE) * STRIDE
