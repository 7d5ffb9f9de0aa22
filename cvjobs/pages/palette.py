"""The colours of classes, fixed by class number; the first ones are distinct to colour-blind eyes."""

from __future__ import annotations

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
    code = COLOURS[place(category_id)]
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)
