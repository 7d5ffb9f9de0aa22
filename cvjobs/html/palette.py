"""The colours of classes, the first ones distinct to colour-blind eyes, and a scale from little to much."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# A scale whose lightness grows evenly: matplotlib's "inferno" (Smith and van der Walt, CC0), without its ends.
HEAT = ("#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d")

# The first are Okabe and Ito's (https://jfly.uni-koeln.de/color/), shifted by one: category 1 is most often the first.
COLOURS = (
    "#aab2bd",
    "#e69f00",
    "#56b4e9",
    "#00a878",
    "#f0e442",
    "#d55e00",
    "#cc79a7",
    "#4a8fe0",
    "#b3de69",
    "#a66bd1",
    "#ff8f7a",
    "#2fbfb3",
    "#c99a6b",
    "#e0559b",
    "#8c9cf5",
    "#8fa832",
    "#ffc48c",
    "#6f9fb5",
    "#d9a6f0",
    "#c4694a",
)


def place(category_id: int) -> int:
    """Return the position in ``COLOURS`` of a class; the same on every page."""
    return category_id % len(COLOURS)


def rgb(category_id: int) -> tuple[int, int, int]:
    """Return the colour of a class, 0..255."""
    return _rgb(COLOURS[place(category_id)])


def heat(count: int) -> npt.NDArray[np.uint8]:
    """Return ``count`` colours from the low end of ``HEAT`` to its high one, uint8 (count, 3)."""
    inks = np.array([_rgb(code) for code in HEAT], float)
    places = np.linspace(0, len(inks) - 1, count)
    channels = [np.interp(places, np.arange(len(inks)), inks[:, channel]) for channel in range(3)]
    return np.stack(channels, 1).round().astype(np.uint8)


def _rgb(code: str) -> tuple[int, int, int]:
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)
