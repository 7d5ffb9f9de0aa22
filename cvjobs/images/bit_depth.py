"""How many bits of a sample are used, and samples scaled by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cvjobs.images.transform import Transform

Samples = npt.NDArray[Any]

Number = TypeVar("Number", np.uint8, np.uint16)

_AT_ONCE = 1 << 20  # samples
MOST_UNSAID = 14  # 16-bit samples that need no more are taken for what a camera of fewer bits left


def used(values: Samples, alpha: bool, said: int | None, transform: Transform) -> tuple[Samples, int]:
    """Scale unsigned samples of 16 bits, of which fewer may be used, to 0..65535.

    How many is what the file says, else what the user said, unless a sample shows that it is more. Returns also the
    bits that suffice, where nothing says how many are used and the image would be dark, else 0.
    """
    colours = values[..., :-1] if alpha else values
    peak = int(colours.max(initial=0))
    bits = said or transform.bits or 16
    if bits < 16 and peak < 2**bits:
        if alpha and values[..., -1].max() >= 2**bits:
            return np.dstack([_scaled(colours, bits), values[..., -1:]]), 0
        return _scaled(values, bits), 0
    return values, peak.bit_length() if not said and not transform.bits and 0 < peak < 2**MOST_UNSAID else 0


def _scaled(values: Samples, bits: int) -> Samples:
    most = 2**bits - 1

    def scaled(some: Samples) -> Samples:
        return np.asarray(np.minimum((some.astype(np.uint32) * 65535 + most // 2) // most, 65535))

    return by_rows(values, np.uint16, scaled)


def eight_of(values: Samples, bits: int) -> npt.NDArray[np.uint8]:
    """Scale samples of up to 16 bits to 0..255."""
    most = 2**bits - 1
    return by_rows(values, np.uint8, lambda some: (some.astype(np.uint32) * 255 + most // 2) // most)


def by_rows(values: Samples, kind: type[Number], change: Callable[[Samples], Samples]) -> npt.NDArray[Number]:
    """Return what ``change`` makes of an image (height, ...), some rows at a time, so that it takes little room."""
    step = max(_AT_ONCE // max(values[:1].size, 1), 1)
    first: Samples = change(values[:step])
    found = np.empty((len(values), *first.shape[1:]), kind)
    found[:step] = first
    for top in range(step, len(values), step):
        found[top : top + step] = change(values[top : top + step])
    return found
