"""A convolutional autoencoder for square images of any side, with a dense bottleneck."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (32, 64, 128, 256)
PAINT = 16  # maps of the full size, where convolutions cost the most
SMALLEST = 4  # pixels of a map that is not halved any more


class Autoencoder(nn.Module):
    """Images (B, 3, side, side) from 0 to 1 to ``dim`` numbers, and back.

    The encoder halves the image until a map of at most four pixels is left, and mixes that in a dense layer; the
    decoder does the reverse, to the very same sizes, so that a side need not be a power of two.
    """

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        sides = [side]
        while sides[-1] > SMALLEST:
            sides.append((sides[-1] + 1) // 2)
        levels = max(len(sides) - 1, 1)
        widths = [WIDTHS[min(level, len(WIDTHS) - 1)] for level in range(levels)]
        self.sides, self.width = sides, widths[-1]
        flat = self.width * sides[-1] ** 2
        stride = 2 if len(sides) > 1 else 1
        into = zip([3, *widths], widths, strict=False)
        back = reversed(list(zip([PAINT, *widths], widths, strict=False)))
        self.encoder = nn.Sequential(
            *(layer for before, after in into for layer in _block(before, after, stride)),
            nn.Flatten(),
            nn.Linear(flat, dim),
        )
        self.opening = nn.Linear(dim, flat)
        self.decoder = nn.ModuleList(nn.Sequential(*_block(after, before)) for before, after in back)
        self.painter = nn.Conv2d(PAINT, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return reconstructions, float32 (B, 3, side, side) from 0 to 1."""
        return self.decoded(self.encoder(images))

    def decoded(self, vectors: Tensor) -> Tensor:
        """Return what (B, dim) vectors stand for, float32 (B, 3, side, side) from 0 to 1."""
        last = self.sides[-1]
        maps = self.opening(vectors).view(-1, self.width, last, last)
        for side, block in zip(reversed(self.sides[:-1] or self.sides), self.decoder, strict=True):
            maps = block(functional.interpolate(maps, size=(side, side)))
        return torch.sigmoid(self.painter(maps).float())

    @staticmethod
    def encoding(module: nn.Module) -> nn.Module:
        """Return the encoder alone, whose output is the bottleneck, (B, dim)."""
        assert isinstance(module, Autoencoder)
        return module.encoder


def _block(channels: int, width: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
