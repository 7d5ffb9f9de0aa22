"""COCO's compressed run-length strings: a mask's runs down its columns, as text; made from a crop of the mask alone.

The counts are of zeros and ones in turn, zeros first. From the fourth on each is told as the difference to the one
two before it. A number is its groups of five bits, the lowest first, each with a bit that says whether more follow
and plus 48; the last group's highest bit is the sign. (After maskApi.c of COCO's API.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
Ints = NDArray[np.int64]

_BITS, _MORE, _FIRST = 5, 32, 48
_GROUPS = 13  # of five bits, enough for any int64


def encode(crop: NDArray[np.bool_] | Mask, offset: tuple[int, int], size: tuple[int, int]) -> str:
    """Return the string of a mask that is zero outside a crop; the whole mask is never made.

    Args:
        crop: (h, w), bool, or uint8 of 0 and 1.
        offset: the row and the column of the crop's upper left corner.
        size: height and width of the whole mask, which holds the crop.
    """
    (top, left), (height, width), (h, w) = offset, size, crop.shape
    assert 0 <= top <= height - h, "the crop is outside the mask"
    assert 0 <= left <= width - w, "the crop is outside the mask"
    stride = h + (h < height)  # between two columns of the crop lies at least one zero
    flat = np.zeros(stride * w + 2, bool)
    flat[1:-1].reshape(w, stride)[:, :h] = crop.T
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), max(stride, 1))
    turns = (left + column) * height + top + row
    return written(turns, height * width)


def written(turns: Ints, pixels: int) -> str:
    """Return the string of a mask of ``pixels`` pixels that begins and ends, in turn, at column * height + row."""
    counts = np.diff(turns, prepend=0, append=pixels)
    return _text(counts if counts[-1] else counts[:-1])


def decode(rle: str, height: int, width: int) -> Mask:
    """Return the mask of a string, uint8 (height, width) of 0 and 1; ValueError where it is none of that size."""
    mask = np.zeros((height, width), np.uint8)
    crop, (top, left) = decode_crop(rle, height, width)
    mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return mask


def decode_crop(rle: str, height: int, width: int) -> tuple[Mask, tuple[int, int]]:
    """Return the smallest crop that holds all of a mask, uint8 (h, w), and its row and column; empty for no pixels."""
    begins, ends = runs(rle, height, width)
    if not len(begins):
        return np.zeros((0, 0), np.uint8), (0, 0)
    left, right = int(begins[0]) // height, (int(ends[-1]) - 1) // height + 1
    first = left * height
    turns = np.empty(2 * len(begins) + 1, np.int64)
    turns[:-1:2], turns[1::2], turns[-1] = begins - first, ends - first, (right - left) * height
    ones = np.arange(len(turns), dtype=np.uint8) % 2
    columns = np.repeat(ones, np.diff(turns, prepend=0)).reshape(right - left, height)
    rows = np.flatnonzero(columns.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return columns[:, top:bottom].T, (top, left)


def areas(rles: Sequence[str]) -> Ints:
    """Return how many pixels the masks of n strings have, (n,); ValueError where one is none."""
    lengths = np.fromiter(map(len, rles), np.int64, len(rles))
    values, ends = _values("".join(rles))
    # Which string a value is of, and its place there.
    within = np.searchsorted(ends, np.cumsum(lengths), "left")
    counts = np.diff(within, prepend=0)
    string = np.repeat(np.arange(len(rles)), counts)
    place = np.arange(len(values)) - np.repeat(within - counts, counts)
    # A count of ones is told as the difference to the one before it, so a value is in every later one.
    later = counts[string] // 2 - place // 2
    return np.bincount(string, np.where(place % 2, values * later, 0), len(rles)).astype(np.int64)


def runs(rle: str, height: int, width: int) -> tuple[Ints, Ints]:
    """Return where a mask's runs of ones begin and end, as column * height + row; ValueError as for ``decode``."""
    counts = _counts(rle)
    if counts.min(initial=0) < 0 or counts.sum() != height * width:
        raise ValueError(f"the run lengths are not those of a mask of {width} x {height} pixels")
    turns = np.cumsum(counts)
    begins, ends = turns[:-1:2], turns[1::2]
    some = ends > begins
    return begins[some], ends[some]


def _text(counts: Ints) -> str:
    told = counts.copy()
    told[3:] -= counts[1:-2]
    shifts = _BITS * np.arange(_GROUPS)
    # As many groups as leave nothing but copies of the sign.
    size = np.where(told < 0, ~told, told)
    length = 1 + (size[:, None] >> (shifts[:-1] + _BITS - 1) != 0).sum(axis=1)
    groups = told[:, None] >> shifts & _MORE - 1
    place = np.arange(_GROUPS)
    groups |= np.where(place < length[:, None] - 1, _MORE, 0)
    text: bytes = (groups[place < length[:, None]] + _FIRST).astype(np.uint8).tobytes()
    return text.decode("ascii")


def _counts(rle: str) -> Ints:
    counts, _ = _values(rle)
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    return counts


def _values(rle: str) -> tuple[Ints, Ints]:
    """Return the numbers in a string as they are told, and where their last groups are."""
    try:
        groups = np.frombuffer(rle.encode("ascii"), np.uint8).astype(np.int64) - _FIRST
    except UnicodeEncodeError:
        raise ValueError("a run-length string has only ASCII characters") from None
    if not len(groups):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    last = groups & _MORE == 0
    if groups.min() < 0 or groups.max() >= 2 * _MORE or not last[-1]:
        raise ValueError("this is no run-length string of COCO's")
    ends = np.flatnonzero(last)
    begins = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - begins + 1
    if lengths.max() >= _GROUPS:
        raise ValueError("this is no run-length string of COCO's")
    place = np.arange(len(groups)) - np.repeat(begins, lengths)
    values = np.add.reduceat((groups & _MORE - 1) << _BITS * place, begins)
    negative = groups[ends] & _MORE // 2 != 0
    return values - np.where(negative, 1 << _BITS * lengths, 0), ends
