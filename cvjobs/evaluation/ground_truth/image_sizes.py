"""The sizes of images beside a truth that gives boxes in shares of them, from their headers."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from cvjobs.common import rules
from cvjobs.images import orientation

UNKNOWN = (0, 0)


def size(file: Path) -> tuple[int, int]:
    """Return the height and width of an image that is upright, in pixels; (0, 0) where it cannot be read."""
    try:
        with Image.open(file) as image:
            width, height = image.size
            turn = image.getexif().get(orientation.TAG) if image.format == "TIFF" else None
            on_its_side = (turn or orientation.said(image, rules.PIXELS)) in orientation.ON_ITS_SIDE
            return (width, height) if on_its_side else (height, width)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return UNKNOWN
