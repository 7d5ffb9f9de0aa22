"""Decoded pictures of their own sizes, mapped from the files of their chunks, which may come while others are used."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvjobs.common.errors import JobFailed
from cvjobs.training.data.chunk_pixels import PLACE, ROWS, WHOLE
from cvjobs.training.data.decode_request import DecodedImages
from cvjobs.training.data.decoded import Pictures
from cvjobs.training.data.outcomes import POLL, nothing, outcome
from cvjobs.training.recipe.sampling import WINDOW
from cvjobs.training.recipe.whole_crops import PackedPictures

MAPPED = 3 * WINDOW  # chunks at once, where they do not all stay
PATIENCE = 600  # looks at a training all of whose images failed


class WholePictures:
    """The pictures of a split, by their number among the listed images; those of a chunk are waited for.

    ``glance`` is called while one is waited for, and may raise.
    """

    def __init__(self, decoded: DecodedImages, glance: Callable[[], None] = nothing) -> None:
        self._decoded, self._glance = decoded, glance
        self._chunks: dict[int, _Chunk] = {}
        self._there = 0

    def __len__(self) -> int:
        return len(self._decoded.rows)

    @property
    def complete(self) -> bool:
        """Whether all of them are there, and stay."""
        folders = self._decoded.folders
        if self._decoded.passing:
            return False
        while self._there < len(folders) and os.path.exists(os.path.join(folders[self._there], ROWS)):
            self._there += 1
        return self._there == len(folders)

    @property
    def nbytes(self) -> int:
        """The bytes of all pixels, for which all of them are waited for."""
        return sum(self._chunk(number).nbytes for number in range(len(self._decoded.folders)))

    def stand_ins(self, which: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of pictures to take for some numbers: of one that failed the next that did not.

        Raises:
            JobFailed: all of them failed.
        """
        found = which.copy()
        for chunk, at in self._by_chunk(which):
            found[at] = self._following(chunk, which[at] % self._decoded.length)
        return found

    def sizes(self, which: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return the heights and the widths of some pictures, int64 (n,) each."""
        _, heights, widths = self._places(which).unbind(1)
        return heights, widths

    def some(self, which: NDArray[np.int64]) -> list[Tensor]:
        """Return some pictures by their number, uint8 (height, width, 3) each, where they are mapped."""
        chunks = (which // self._decoded.length).tolist()
        return [
            self._chunk(chunk).pixels[start : start + 3 * height * width].view(height, width, 3)
            for chunk, (start, height, width) in zip(chunks, self._places(which).tolist(), strict=True)
        ]

    def packed(self, which: NDArray[np.int64]) -> PackedPictures:
        """Return copies of some pictures, one behind the other."""
        places = self._places(which)
        sizes = 3 * places[:, 1] * places[:, 2]
        places[:, 0] = sizes.cumsum(0) - sizes
        pixels = torch.empty(int(sizes.sum()), dtype=torch.uint8)
        for picture, part in zip(self.some(which), torch.split(pixels, sizes.tolist()), strict=True):
            part.copy_(picture.view(-1))
        return PackedPictures(pixels=pixels, places=places)

    def _places(self, which: NDArray[np.int64]) -> Tensor:
        """Return the first byte of some pictures in their chunks, their heights and widths, int64 (n, 3)."""
        places = torch.empty(len(which), 3, dtype=torch.int64)
        for chunk, at in self._by_chunk(which):
            places[torch.from_numpy(at)] = self._chunk(chunk).places[torch.from_numpy(which[at] % self._decoded.length)]
        return places

    def _by_chunk(self, which: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield each chunk that some numbers are in, and the places of these."""
        chunks = which // self._decoded.length
        for chunk in np.unique(chunks).tolist():
            yield chunk, np.flatnonzero(chunks == chunk)

    def _following(self, chunk: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return for rows of a chunk the numbers of the next pictures that did not fail."""
        for more in range(len(self._decoded.folders) + 1):
            number = (chunk + more) % len(self._decoded.folders)
            good = self._chunk(number).good
            if len(good):
                next_ = np.searchsorted(good, rows if not more else np.zeros_like(rows)) % len(good)
                return number * self._decoded.length + good[next_]
        for _ in range(PATIENCE):  # who decodes says why, and ends this
            self._glance()
            time.sleep(POLL)
        raise JobFailed("None of the images to train with could be decoded: replace them, then run again.")

    def _chunk(self, number: int) -> _Chunk:
        if number not in self._chunks:
            self._chunks[number] = _Chunk(*outcome(self._decoded.places(number), self._glance))
            if self._decoded.passing:
                _ = self._chunks[number].pixels  # while they are there
                if len(self._chunks) > MAPPED:
                    del self._chunks[next(iter(self._chunks))]
        return self._chunks[number]


class _Chunk:
    """A chunk: the ``places`` of its pictures, int64 (n, 3), and the rows of those that are ``good``."""

    def __init__(self, folder: str, rows: pa.Table) -> None:
        self._folder = folder
        self.good = np.flatnonzero(np.asarray(rows["code"].is_null()))
        filled = [rows[name].combine_chunks().fill_null(0).to_numpy() for name in PLACE]
        self.places = torch.from_numpy(np.stack(filled, 1).astype(np.int64))

    @property
    def nbytes(self) -> int:
        """The bytes of its pixels."""
        return int((3 * self.places[:, 1] * self.places[:, 2]).sum())

    @cached_property
    def pixels(self) -> Tensor:
        """All of them, uint8 (bytes,), not to be written: mapped without a descriptor, of which a process has few."""
        if not self.nbytes:
            return torch.empty(0, dtype=torch.uint8)
        file = os.path.join(self._folder, WHOLE)
        return torch.from_file(file, shared=False, size=self.nbytes, dtype=torch.uint8)


AnyPictures = Pictures | WholePictures


def opened(decoded: DecodedImages, glance: Callable[[], None] = nothing) -> AnyPictures:
    """Return decoded images as what they are: squares, or whole pictures, which may not be there yet."""
    return WholePictures(decoded, glance) if decoded.whole else Pictures(decoded)
