"""Masks of objects on the canvases of a training, eight pixels a byte, which is how they wait and travel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvjobs.images.masks import rle

Packed = NDArray[np.uint8]
"""Masks of squares of ``side`` pixels, uint8 (..., side, bytes): the lowest bit is the pixel on the left."""

_BITS = np.array([bin(byte).count("1") for byte in range(256)], np.int64)


@dataclass(frozen=True, kw_only=True)
class Window:
    """What is seen of a picture, and where: the part from ``top`` to ``bottom`` and ``left`` to ``right``.

    The picture has ``height`` and ``width``, in the unit of these; on the canvas the part has ``rows`` and ``columns``
    from its corner on, mirrored or upturned within them.
    """

    top: int
    bottom: int
    left: int
    right: int
    height: int
    width: int
    rows: int
    columns: int
    mirrored: bool
    upturned: bool


def empty(count: int, side: int) -> Packed:
    """Return so many masks without pixels."""
    return np.zeros((count, side, -(-side // 8)), np.uint8)


def placed(masks: Sequence[bytes], size: tuple[int, int], seen: Window, side: int) -> Packed:
    """Return the masks of a picture on its canvas, (n, side, bytes): each pixel the nearest one of its mask.

    Args:
        masks: COCO's compressed run lengths.
        size: Their (height, width), which may be another one than the picture's.
        seen: What is seen of the picture.
        side: Of the canvas.
    """
    out = empty(len(masks), side)
    rows = _sampled(seen.top, seen.bottom, seen.rows, seen.height, size[0], seen.upturned)
    columns = _sampled(seen.left, seen.right, seen.columns, seen.width, size[1], seen.mirrored)
    for text, place in zip(masks, out, strict=True):
        crop, (top, left) = rle.decode_crop(text.decode(), *size)
        down = np.flatnonzero((rows >= top) & (rows < top + crop.shape[0]))
        across = np.flatnonzero((columns >= left) & (columns < left + crop.shape[1]))
        if len(down) and len(across):
            line = np.zeros((len(down), side), np.uint8)
            line[:, across] = crop[(rows[down] - top)[:, None], columns[across] - left]
            place[down] = np.packbits(line, axis=1, bitorder="little")
    return out


def _sampled(start: int, end: int, count: int, picture: int, mask: int, turned: bool) -> NDArray[np.int64]:
    """Return the line of a mask that is in the middle of each of ``count`` pixels of a canvas."""
    middles = start + (np.arange(count) + 0.5) * ((end - start) / count)
    lines = np.minimum((middles * (mask / picture)).astype(np.int64), mask - 1)
    return lines[::-1] if turned else lines


def areas(masks: Packed) -> NDArray[np.int64]:
    """Return the pixels of each mask, (n,)."""
    counts: NDArray[np.int64] = _BITS[masks].sum((1, 2))
    return counts


def boxes(masks: Packed) -> NDArray[np.float32]:
    """Return the smallest boxes around masks that have pixels: left, top, right and bottom, (n, 4)."""
    found = np.zeros((len(masks), 4), np.float32)
    for mask, box in zip(masks, found, strict=True):
        rows = np.flatnonzero(mask.any(1))
        columns = np.flatnonzero(np.unpackbits(np.bitwise_or.reduce(mask, 0), bitorder="little"))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return found


def unpacked(masks: Tensor, height: int, width: int) -> Tensor:
    """Return masks (..., side, bytes) as uint8 (..., height, width) of 0 and 1, on their device."""
    some = masks[..., :height, : -(-width // 8)].unsqueeze(-1)
    bits = (some >> torch.arange(8, dtype=torch.uint8, device=masks.device)) & 1
    return bits.flatten(-2)[..., :width]
