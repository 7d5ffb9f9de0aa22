"""Looks at a picture: its tiles, framed as a model wants them, and again larger, smaller or mirrored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cvjobs.images.picture import Pixels
from cvjobs.networks.detection.framing import Framing, Size
from cvjobs.networks.detection.settings import Rules


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

    ``canvas`` is the (height, width) of the tensor that holds it, ``origin`` where (top, left) in there.
    """

    picture: int
    tile: Tile
    size: Size
    canvas: Size
    origin: Size = (0, 0)
    mirrored: bool = False

    def place(self, canvas: Tensor) -> Tensor:
        """Return its part of a tensor (..., *canvas)."""
        (top, left), (height, width) = self.origin, self.size
        return canvas[..., top : top + height, left : left + width]

    def draw(self, pixels: Pixels, canvas: Tensor, framing: Framing) -> None:
        """Put the view of a picture, uint8 (height, width, 3), into a float32 tensor (3, *canvas), 0..255."""
        tile, place = self.tile, self.place(canvas)
        framing.draw(pixels[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width], place)
        if self.mirrored:
            place.copy_(place.flip(2))

    def restored(self, points: Tensor) -> Tensor:
        """Return points of the canvas, (..., 2) x and y, in pixels of the picture."""
        (top, left), (height, width) = self.origin, self.size
        x, y = (points - points.new_tensor([left, top])).unbind(-1)
        if self.mirrored:
            x = width - x
        scale = points.new_tensor([self.tile.width / width, self.tile.height / height])
        return torch.stack([x, y], -1) * scale + points.new_tensor([self.tile.left, self.tile.top])

    def restored_boxes(self, boxes: Tensor) -> Tensor:
        """Return boxes (N, 4) of the canvas in pixels of the picture."""
        corners = self.restored(boxes.view(-1, 2, 2))
        if self.mirrored:
            corners = torch.stack([corners.amin(1), corners.amax(1)], 1)
        return corners.flatten(1)


def views(picture: int, height: int, width: int, rules: Rules, framing: Framing) -> Iterator[View]:
    """Yield the looks at a picture of that size in pixels, tile by tile."""
    for tile in tiles(height, width, rules.tile, rules.overlap):
        for scale in rules.scales:
            size = framing.size(tile.height, tile.width, rules, scale)
            canvas = framing.canvas(size, rules)
            for mirrored in (False, True)[: 1 + rules.flip]:
                yield View(picture, tile, size, canvas, framing.origin(size, canvas), mirrored)


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
