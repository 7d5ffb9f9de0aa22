"""Decoded pictures of their own sizes, mapped from the files of their chunks; see ``decoded``."""

from __future__ import annotations

import os

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvjobs.training.data.chunk_pixels import WHOLE
from cvjobs.training.data.decoded import DecodedImages, Pictures
from cvjobs.training.recipe.whole_crops import PackedPictures


class WholePictures:
    """The pictures that could be decoded; ``nbytes`` are those of their pixels."""

    def __init__(self, decoded: DecodedImages) -> None:
        assert decoded.places is not None
        self._decoded, self._places = decoded, torch.from_numpy(decoded.places)
        self._maps: dict[int, Tensor] = {}
        self._sizes = 3 * self._places[:, 1] * self._places[:, 2]
        self.nbytes = int(self._sizes.sum())

    def __len__(self) -> int:
        return len(self._places)

    def sizes(self, which: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return the heights and the widths of some pictures, int64 (n,) each."""
        _, heights, widths = self._places[torch.from_numpy(which)].unbind(1)
        return heights, widths

    def some(self, which: NDArray[np.int64]) -> list[Tensor]:
        """Return some pictures by their number, uint8 (height, width, 3) each, where they are mapped."""
        chunks = (self._decoded.rows[which] // self._decoded.length).tolist()
        places = self._places[torch.from_numpy(which)].tolist()
        return [
            self._chunk(chunk)[start : start + 3 * height * width].view(height, width, 3)
            for chunk, (start, height, width) in zip(chunks, places, strict=True)
        ]

    def packed(self, which: NDArray[np.int64]) -> PackedPictures:
        """Return copies of some pictures, one behind the other."""
        rows = torch.from_numpy(which)
        places, sizes = self._places[rows].clone(), self._sizes[rows]
        places[:, 0] = sizes.cumsum(0) - sizes
        pixels = torch.empty(int(sizes.sum()), dtype=torch.uint8)
        for picture, part in zip(self.some(which), torch.split(pixels, sizes.tolist()), strict=True):
            part.copy_(picture.view(-1))
        return PackedPictures(pixels=pixels, places=places)

    def _chunk(self, number: int) -> Tensor:
        if number not in self._maps:
            file = os.path.join(self._decoded.folders[number], WHOLE)
            # It keeps no descriptor, of which a process has few, and changes nothing in the file.
            self._maps[number] = torch.from_file(file, shared=False, size=os.path.getsize(file), dtype=torch.uint8)
        return self._maps[number]


def opened(decoded: DecodedImages) -> Pictures | WholePictures:
    """Return decoded images as what they are: squares, or whole pictures."""
    return Pictures(decoded) if decoded.places is None else WholePictures(decoded)
