"""How many bits of a sample are used, and samples scaled by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cvjobs.images.transform import Transform

Samples = npt.NDArray[Any]

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
    return np.asarray(np.minimum((values.astype(np.uint32) * 65535 + most // 2) // most, 65535), np.uint16)


def eight_of(values: Samples, bits: int) -> npt.NDArray[np.uint8]:
    """Scale samples of up to 16 bits to 0..255."""
    most = 2**bits - 1
    return np.asarray((values.astype(np.uint32) * 255 + most // 2) // most, np.uint8)
