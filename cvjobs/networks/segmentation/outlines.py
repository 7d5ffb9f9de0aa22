"""Run-length strings of masks that a network gives as grids of numbers, without a mask of the image's size.

Down a column of the image what is interpolated between the cells is a straight line from cell to cell, so it passes the
bound once at most between two. Time and memory are those of the mask's width alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from cvjobs.images.masks import rle

LEAST = 0.5  # the probability from which on a pixel belongs to the object
BORDER = 1  # cells of probability 0 around a mask, so that it fades out at the edge of its box

Floats = NDArray[np.float64]
Size = tuple[int, int]  # (height, width) in pixels


def of_boxes(masks: NDArray[np.float32], boxes: NDArray[np.float32], size: Size) -> list[str]:
    """Return the run-length strings of masks in boxes, for an image of that (height, width).

    The masks are pasted as torchvision's ``paste_masks_in_image`` does it and cut off at a probability of 0.5.

    Args:
        masks: (N, M, M) the probabilities in the cells of each box.
        boxes: (N, 4) float32, in pixels of the image.
        size: the image's (height, width).
    """
    cells = np.pad(masks.astype(np.float64), ((0, 0), (BORDER, BORDER), (BORDER, BORDER)))
    corners = _grown(torch.from_numpy(boxes), cells.shape[-1] / (cells.shape[-1] - 2 * BORDER)).tolist()
    return [
        rle.written(_turns(mask, corner, size), size[0] * size[1]) for mask, corner in zip(cells, corners, strict=True)
    ]


def of_image(masks: NDArray[np.float32], size: Size) -> list[str]:
    """Return the run-length strings of masks (N, h, w) of a whole image of that (height, width).

    A pixel belongs to the object where the bilinear interpolation (corners not aligned) of the values is above 0.
    """
    return [rle.written(_turns_of_image(mask.astype(np.float64), size), size[0] * size[1]) for mask in masks]


def of_cells(inside: NDArray[np.bool_], size: Size) -> list[str]:
    """Return the run-length strings of masks (N, h, w) of a whole image of that (height, width).

    A pixel belongs to the object where its nearest cell does, by torch's ``nearest``.
    """
    rows, columns = (_nearest(count, side) for count, side in zip(inside.shape[1:], size, strict=True))
    used, first = np.unique(rows, return_index=True)
    return [rle.written(_turns_of_cells(one[used][:, columns].T, first, size[0]), size[0] * size[1]) for one in inside]


def of_numbers(found: NDArray[np.uint8] | NDArray[np.uint16], numbers: Iterable[int]) -> list[str]:
    """Return the run-length strings of the pixels of each number in a map (height, width)."""
    flat = found.T.ravel()
    begins = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    ends = np.append(begins[1:], flat.size)
    value = flat[begins]
    return [rle.written(np.stack([begins[own], ends[own]], 1).ravel(), flat.size) for own in map(value.__eq__, numbers)]


def boxes(rles: Sequence[str], size: Size) -> NDArray[np.float32]:
    """Return the smallest boxes (N, 4), x0, y0, x1, y1 in pixels, around masks that have pixels."""
    found = np.empty((len(rles), 4), np.float32)
    for number, text in enumerate(rles):
        begins, ends = rle.runs(text, *size)
        columns, last = begins // size[0], (ends - 1) // size[0]
        across = bool((columns != last).any())  # a run goes on in the next column: from the top to the bottom
        top = 0 if across else (begins % size[0]).min()
        bottom = size[0] if across else ((ends - 1) % size[0]).max() + 1
        found[number] = columns[0], top, last[-1] + 1, bottom
    return found


def _turns(cells: Floats, box: tuple[int, int, int, int], size: Size) -> NDArray[np.int64]:
    """Return where the mask begins and ends in turn, as column * height + row; its border cells are 0."""
    x0, y0, x1, y1 = box
    height, width, count = max(y1 - y0 + 1, 1), max(x1 - x0 + 1, 1), len(cells)
    columns = np.arange(max(x0, 0), min(x0 + width, size[1]))
    down = _down(cells, (columns - x0 + 0.5) * count / width - 0.5)
    inside = down >= LEAST
    column, cell = np.nonzero(inside[:, 1:] != inside[:, :-1])
    # The pixel that lies on the line belongs to the object.
    first = _crossings(down, column, cell, LEAST, height, on_line=True)
    turns = columns[column] * size[0] + np.clip(y0 + first, max(y0, 0), max(min(y0 + height, size[0]), 0))
    return _runs(turns)


def _turns_of_image(cells: Floats, size: Size) -> NDArray[np.int64]:
    height, width = size
    down = _down(cells, (np.arange(width) + 0.5) * cells.shape[1] / width - 0.5)
    inside = down > 0
    column, cell = np.nonzero(inside[:, 1:] != inside[:, :-1])
    first = np.clip(_crossings(down, column, cell, 0.0, height, on_line=False), 0, height)
    begun, ended = np.flatnonzero(inside[:, 0]) * height, np.flatnonzero(inside[:, -1]) * height + height
    return _runs(np.concatenate([column * height + first, begun, ended]))


def _turns_of_cells(down: NDArray[np.bool_], first: NDArray[np.int64], height: int) -> NDArray[np.int64]:
    """``down`` (columns, h) are the cells of each column of pixels, ``first`` (h,) the first row of each."""
    column, cell = np.nonzero(down[:, 1:] != down[:, :-1])
    begun, ended = np.flatnonzero(down[:, 0]) * height, np.flatnonzero(down[:, -1]) * height + height
    return _runs(np.concatenate([column * height + first[cell + 1], begun, ended]))


def _nearest(count: int, size: int) -> NDArray[np.int64]:
    """Return which of ``count`` cells each of ``size`` pixels has, as torch rounds it."""
    cells = torch.arange(count, dtype=torch.float32)[None, None]
    found: NDArray[np.int64] = torch.nn.functional.interpolate(cells, size, mode="nearest")[0, 0].long().numpy()
    return found


def _down(cells: Floats, place: Floats) -> Floats:
    """Return the values of cells (h, w) at places between its columns, (places, h)."""
    place = np.clip(place, 0, cells.shape[1] - 1)
    left = np.minimum(place.astype(np.int64), max(cells.shape[1] - 2, 0))
    share = place - left
    right = np.minimum(left + 1, cells.shape[1] - 1)
    found: Floats = (cells[:, left] * (1 - share) + cells[:, right] * share).T
    return found


def _crossings(
    down: Floats, column: NDArray[np.int64], cell: NDArray[np.int64], bound: float, height: int, *, on_line: bool
) -> NDArray[np.int64]:
    """Return the first row after each passing of the bound, of cells that are ``height`` pixels high together.

    ``on_line``: a row that lies on the bound is inside.
    """
    before, after = down[column, cell], down[column, cell + 1]
    row = (cell + (bound - before) / (after - before) + 0.5) * height / down.shape[1] - 0.5
    rising = after > before
    found: NDArray[np.int64] = np.where(rising == on_line, np.ceil(row), np.floor(row) + 1).astype(np.int64)
    return found


def _runs(turns: NDArray[np.int64]) -> NDArray[np.int64]:
    places, times = np.unique(turns, return_counts=True)
    kept: NDArray[np.int64] = places[times % 2 == 1]  # a run of no pixels begins and ends at one place
    return kept


def _grown(boxes: torch.Tensor, factor: float) -> torch.Tensor:
    """Return boxes grown about their centres, cut to whole pixels; in torchvision's order of operations."""
    x0, y0, x1, y1 = boxes.unbind(1)
    half_width, half_height = (x1 - x0) * 0.5, (y1 - y0) * 0.5
    x, y = (x1 + x0) * 0.5, (y1 + y0) * 0.5
    half_width, half_height = half_width * factor, half_height * factor
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], 1).to(torch.int64)
