"""Boxes drawn into small pictures of a training's page, each in the colour of its class."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from cvjobs.html import palette


def draw(image: Image.Image, boxes: Sequence[Sequence[float]], labels: Sequence[int], *, width: int = 2) -> None:
    """Draw boxes (left, top, right, bottom in pixels) into an RGB picture; a label of -1 is no box."""
    pen = ImageDraw.Draw(image)
    for (left, top, right, bottom), label in zip(boxes, labels, strict=True):
        if label >= 0 and right > left and bottom > top:
            colour = palette.COLOURS[palette.place(label + 1)]
            pen.rectangle((left, top, right, bottom), outline=colour, width=width)
