"""From a network's small logits to a class for every pixel of the image, without logits of that size.

The image is looked at in tiles. Bilinear interpolation only ever mixes a few neighbouring logits, so where one class
is above all others in all logits that a tile depends on, it is so in every pixel; elsewhere only the classes are
interpolated that can win anywhere in the tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TILE = 16  # the side of a tile in pixels
AT_ONCE = 1 << 11  # tiles

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def class_map(logits: Tensor, seen: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Return the class of each pixel, (height, width), uint8 or above 256 classes uint16, where the logits are.

    The logits are resized bilinearly (no antialiasing, corners not aligned) to the size that the network saw, as it
    would itself, and from there to the image's; the class is that of the largest, the first of equal ones. Memory is
    that of the map and a few megabytes.

    Args:
        logits: float32 (classes, h, w), finite.
        seen: (height, width) of the image that went into the network.
        size: (height, width) of the image.
    """
    rows = _Axis.of(logits.shape[1], seen[0], size[0], logits.device)
    columns = _Axis.of(logits.shape[2], seen[1], size[1], logits.device)
    least = _over_tiles(logits, rows, columns, torch.minimum)
    most = _over_tiles(logits, rows, columns, torch.maximum)
    # A class that is nowhere in a tile above the least of another cannot win there.
    possible = most >= least.amax(0)
    kind = torch.uint8 if len(logits) <= 256 else torch.int32
    winner = possible.to(torch.uint8).argmax(0).to(kind)
    tiles = winner.repeat_interleave(TILE, 1)[:, None].repeat(1, TILE, 1).view(len(winner), TILE, -1, TILE)
    count = possible.sum(0)
    for classes in range(2, int(count.max()) + 1):
        chosen = torch.where(count == classes)
        for start in range(0, len(chosen[0]), AT_ONCE):
            down, across = (part[start : start + AT_ONCE] for part in chosen)
            names = possible[:, down, across].T.nonzero()[:, 1].view(-1, classes).T
            tiles[down, :, across] = _winners(logits, names, rows.at(down), columns.at(across), kind)
    found = tiles.view(len(winner) * TILE, -1)[: size[0], : size[1]].contiguous()
    return found if kind is torch.uint8 else found.to(torch.uint16)


@dataclass(frozen=True)
class _Axis:
    """How the pixels along one side depend on the logits: the first that each tile needs, and its pixels' weights."""

    first: Tensor  # (tiles,)
    weight: Tensor  # (tiles, TILE, support) float32

    @classmethod
    def of(cls, logits: int, seen: int, size: int, device: torch.device) -> _Axis:
        middle, middle_share = _neighbours(seen, size)
        source, share = _neighbours(logits, seen)
        source = source[middle].reshape(size, 4)
        share = (share[middle] * middle_share[:, :, None]).reshape(size, 4)
        pixel = np.arange(size)
        tile = pixel // TILE
        first = source[::TILE].min(axis=1)
        last = np.maximum.reduceat(source.max(axis=1), pixel[::TILE])
        support = int((last - first).max()) + 1
        first = np.minimum(first, logits - support)
        weight = np.zeros((len(first) * TILE, support), np.float32)
        for k in range(4):
            weight[pixel, source[:, k] - first[tile]] += share[:, k]
        shaped = weight.reshape(len(first), TILE, support)
        return cls(torch.from_numpy(first).to(device), torch.from_numpy(shaped).to(device))

    @property
    def support(self) -> int:
        """How many logits a tile depends on."""
        return self.weight.shape[2]

    def at(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices of the logits (n, support) and the weights (n, TILE, support) of some tiles."""
        offsets = torch.arange(self.support, device=self.first.device)
        return self.first[tiles][:, None] + offsets, self.weight[tiles]


def _neighbours(count: int, size: int) -> tuple[Ints, Floats]:
    """Return, for each of ``size`` pixels, the two of ``count`` values that it lies between, and their shares."""
    place = np.maximum((np.arange(size) + 0.5) * (count / size) - 0.5, 0)
    before = np.minimum(place.astype(np.int64), count - 1)
    share = place - before
    return np.stack([before, np.minimum(before + 1, count - 1)], 1), np.stack([1 - share, share], 1)


def _over_tiles(logits: Tensor, rows: _Axis, columns: _Axis, pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the least or greatest logit of each class that each tile depends on, (classes, tiles, tiles)."""
    for dim, axis in ((1, rows), (2, columns)):
        length = logits.shape[dim] - axis.support + 1
        logits = reduce(pick, [logits.narrow(dim, k, length) for k in range(axis.support)])
    return logits[:, rows.first][:, :, columns.first]


def _winners(
    logits: Tensor, names: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], kind: torch.dtype
) -> Tensor:
    """Return which of the names (classes, n) wins each pixel of n tiles, (n, TILE, TILE)."""
    (down, left), (across, right) = rows, columns
    place = down[:, :, None] * logits.shape[2] + across[:, None, :]
    flat, plane = logits.flatten(), logits[0].numel()
    patches = (flat[place + name[:, None, None] * plane] for name in names)
    first = next(patches)
    right = right.mT.contiguous()
    # Interpolated are the differences to the first class, for they are one less than the classes.
    best = torch.zeros((), device=logits.device)
    winner = names[0].to(kind)[:, None, None].expand(-1, TILE, TILE)
    last = len(names) - 1
    for number, (name, patch) in enumerate(zip(names[1:], patches, strict=True), 1):
        value = left @ (patch - first) @ right
        winner = torch.where(value > best, name.to(kind)[:, None, None], winner)
        if number < last:
            best = torch.maximum(best, value)
    return winner
