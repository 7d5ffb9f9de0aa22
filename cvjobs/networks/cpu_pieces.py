"""How many images of a batch go through a model together on a CPU: few large ones, whose maps stay in its caches."""

from __future__ import annotations

# Pixels of the images that are together: in eights D-FINE-N takes 1.7 times as long for an image of 640 x 640, and
# alone SegFormer-B0 1.5 times as long for one of 512 x 512 as in fours.
PIXELS, OF_SEGMENTERS = 1 << 19, 1 << 20


def step(count: int, height: int, width: int, pixels: int = PIXELS) -> int:
    """Return how many of ``count`` images of that size in pixels go together, so that all pieces are about as large."""
    most = max(pixels // (height * width), 1)
    return -(-count // -(-count // most)) if count else 1
